"""How the panel writes times: one way, sortable, UTC (FORMAT_MODULE_PATH)."""
