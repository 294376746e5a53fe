"""What the learner was given: accepted events in columns, and what is asked of them. Pure."""
