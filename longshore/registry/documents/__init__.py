"""One file → its value, its model, its findings: the YAML gate, the schemas of documents, JSON Schemas in cards."""
