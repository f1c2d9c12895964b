"""Feature extractors that share one interface, see ``base.Backbone``."""
