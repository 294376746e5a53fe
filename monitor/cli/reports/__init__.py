"""``report``: an incident, a stretch of time or a week, for a post-mortem and for the mail.

Facts are gathered from a folder (:mod:`~monitor.cli.reports.folder`) or from the running service
(:mod:`~monitor.cli.reports.service`) into :class:`~monitor.cli.reports.facts.Facts`, which the page
and the text are made of. What cannot be known is a sentence in ``missing``, never a zero.
"""
