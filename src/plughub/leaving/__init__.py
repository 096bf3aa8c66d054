"""What people and organisations take along, and what goes with them when they leave."""
