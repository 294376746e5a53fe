"""From channel p-values to a verdict, an action and a reason."""
