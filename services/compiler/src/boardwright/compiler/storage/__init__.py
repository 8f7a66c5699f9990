"""The compiler's tables: those of jobs, requests and events, and its audit log."""
