"""The quarantine store: a database that is a view of the quarantine and of the reviews ledger.

Only what nobody else keeps is its own: notes of the audit trail, and what was counted. Everything
else comes back when the database is deleted.
"""
