"""Before any test imports dm_control, whose import fixes MuJoCo's OpenGL backend for the whole process."""

from sim_bridge.gl import choose_gl_backend

choose_gl_backend()
