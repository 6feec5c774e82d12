"""The mail service: letters to customers."""
