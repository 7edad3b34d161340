"""TOML files become frozen settings; an unknown key is refused with the nearest known one."""
