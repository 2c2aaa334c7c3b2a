"""Where Airflow 2.11 to 3.3 differ: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import mask_secret

__all__ = ["form_widget", "mask_secret"]


def form_widget(field: Mapping[str, Any]) -> Any:
    """A connection field of the provider info as the form field that Airflow before 3.3 wants."""
    from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found]
        BS3PasswordFieldWidget,
        BS3TextFieldWidget,
    )
    from wtforms import (  # type: ignore[import-untyped]
        DecimalField,
        IntegerField,
        PasswordField,
        StringField,
    )
    from wtforms.validators import NumberRange, Optional  # type: ignore[import-untyped]

    schema = field["schema"]
    label, description = field["label"], field["description"]
    kind = schema["type"][0]
    if schema.get("format") == "password":
        return PasswordField(label, description=description, widget=BS3PasswordFieldWidget())
    if kind == "string":
        return StringField(
            label, description=description, default=schema.get("default"), widget=BS3TextFieldWidget()
        )
    number = IntegerField if kind == "integer" else DecimalField
    limits = NumberRange(min=schema.get("minimum"), max=schema.get("maximum"))
    return number(
        label, description=description, validators=[Optional(), limits], widget=BS3TextFieldWidget()
    )
