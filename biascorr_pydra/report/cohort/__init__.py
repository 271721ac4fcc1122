"""The cohort's page, tables and figures."""
