"""Where Airflow 2.11 to 3.3 differ: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from airflow.sdk.log import mask_secret
except ImportError:  # 2.11
    from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[import-not-found,no-redef]

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # 2.11, which has no event-driven scheduling
    from airflow.triggers.base import (  # type: ignore[assignment]
        BaseTrigger as BaseEventTrigger,
    )

__all__ = ["BaseEventTrigger", "form_widget", "mask_secret", "renderable", "task_state_store"]


def renderable(value: Any) -> Any:
    """
    A template field in which a ``pathlib.Path`` is text, also in a list.

    Airflow 3.0 and 3.1 take a path's own ``resolve`` for that of an XCom, and fail where nothing is there.
    """
    if isinstance(value, list):
        return [renderable(each) for each in value]
    return str(value) if type(value) is type(Path()) else value


def task_state_store(context: Mapping[str, Any]) -> Any:
    """Where a task keeps what its next attempt needs: Airflow 3.3 and newer; None before."""
    return context.get("task_state_store")


def form_widget(field: Mapping[str, Any]) -> Any:
    """
    A connection field of the provider info as the form field that Airflow before 3.3 wants.

    Only of the kinds that the API servers of 3.0 and 3.1 know: they drop others, so a number is a text.
    """
    from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found]
        BS3PasswordFieldWidget,
        BS3TextFieldWidget,
    )
    from wtforms import IntegerField, PasswordField, StringField  # type: ignore[import-untyped]
    from wtforms.validators import NumberRange, Optional  # type: ignore[import-untyped]

    schema = field["schema"]
    label, description = field["label"], field["description"]
    if schema.get("format") == "password":
        return PasswordField(label, description=description, widget=BS3PasswordFieldWidget())
    if "integer" in schema["type"]:
        limits = NumberRange(min=schema.get("minimum"), max=schema.get("maximum"))
        return IntegerField(
            label, description=description, validators=[Optional(), limits], widget=BS3TextFieldWidget()
        )
    return StringField(
        label, description=description, default=schema.get("default"), widget=BS3TextFieldWidget()
    )
