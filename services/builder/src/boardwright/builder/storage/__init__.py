"""The builder's rows: jobs (of ``boardwright.jobs``), requests, events, and the audit log."""
