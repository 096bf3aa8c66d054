"""The house's rules, as checks of the source text."""
