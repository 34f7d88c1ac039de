"""The `/api/v1` dialect: conversations that the server keeps, one message at a time."""
