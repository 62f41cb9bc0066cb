"""rosbag2 bags: written, read, checked and repaired."""
