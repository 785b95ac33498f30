"""What the panel shows: pages of messages, the story of one."""
