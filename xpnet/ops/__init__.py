"""Everything that knows a device: the operations, their measured overrides, memory and threads."""
