"""Notifications: what of the log somebody should know, kept until it is read or old."""
