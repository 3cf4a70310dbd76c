"""Plain HTTP, below every protocol: problems, bodies, tokens, rates and connections."""
