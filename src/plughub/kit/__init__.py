"""Small framework-free parts that every layer may use."""
