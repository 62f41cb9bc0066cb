"""A dm_control arm behind camera, joint and command topics."""
