"""What every door has in common: the route row, the request, the dispatcher in front of the framework."""
