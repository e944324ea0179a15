"""The API for the AI platform and for people: who may call, what they can tell and ask."""
