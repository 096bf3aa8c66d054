"""The authorization server (OAuth 2.1): clients, what people allow them, and the tokens of it. Source: CONTRACT section 3."""
