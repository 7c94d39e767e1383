"""What people look at: units as plain data for a report, a server and a terminal, and the report itself."""
