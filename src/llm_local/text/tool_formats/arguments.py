"""Are a call's arguments what the tool's schema asks for?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["valid_arguments"]


def valid_arguments(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """True when `schema` (JSON Schema, Draft 2020-12 unless it says otherwise) allows `arguments`.

    References are followed inside the schema only, never fetched; a schema that is none allows nothing.
    """
    # Late: only strict tools need it.
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    validator = validator_for(schema, default=Draft202012Validator)
    try:
        validator.check_schema(schema)
        return bool(validator(schema, registry=Registry()).is_valid(arguments))
    except (SchemaError, Unresolvable, RecursionError):
        return False
