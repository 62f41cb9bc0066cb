"""Write, read, check and repair rosbag2 bags."""
