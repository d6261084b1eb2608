"""The few cryptographic constructions that the formats share."""
