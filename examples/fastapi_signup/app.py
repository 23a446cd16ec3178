"""Sign-up as a durable endpoint: check the caller, wait, create the user, send a mail.

    stephttp dev -- uvicorn examples.fastapi_signup.app:app

The database is a real SQLite file, so you can look up what each step did, and how often.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

import stephttp
from examples.fastapi_signup import database
from stephttp import step

COOL_OFF = timedelta(seconds=float(os.environ.get("SIGNUP_COOL_OFF", "5")))
TOKENS = {"secret-of-the-shop": "the shop", "secret-of-the-app": "the app"}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    database.create_tables()
    yield


provider = stephttp.setup("https://api.example.com")
app = FastAPI(title="Sign-up", lifespan=lifespan)
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


class SignUp(BaseModel):
    name: str
    email: str


@dataclass
class User:
    id: int
    name: str
    email: str
    created_by: str


# The steps. Each one may touch the world, because it runs once in the life of a request.


def authenticate(authorization: str, email: str) -> str | None:
    """Return the caller, or None. An expected "no" is a result; a step that raises is retried."""
    database.count_call("authenticate", email)
    return TOKENS.get(authorization.removeprefix("Bearer "))


def validate(form: SignUp) -> list[str]:
    database.count_call("validate", form.email)
    fine = re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", form.email)
    return [] if fine else ["value is not a valid email address"]


def create_user(form: SignUp, caller: str) -> User:
    database.count_call("create-user", form.email)
    user_id = database.insert_user(form.name, form.email, caller)
    return User(id=user_id, name=form.name, email=form.email, created_by=caller)


def welcome_mail(user: User) -> int:
    database.count_call("welcome-mail", user.email)
    return database.send_mail(user.email, f"Welcome, {user.name}!")


# They block while the database writes, so they run in threads, beside the event loop. An async
# function needs no such option: `step.run(...)`.
in_thread = step.options(thread=True)


@app.post("/users", status_code=201)
@provider.endpoint(id="signup", retries=2)
async def sign_up(
    form: SignUp, response: Response, authorization: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    caller = await in_thread.run("authenticate", authenticate, authorization, form.email)
    if caller is None:
        raise HTTPException(401, "unknown token", headers={"WWW-Authenticate": "Bearer"})
    problems = await in_thread.run("validate", validate, form)
    if problems:
        raise RequestValidationError(
            [
                {"type": "value_error", "loc": ("body", "email"), "msg": text, "input": form.email}
                for text in problems
            ]
        )

    # From here on the request continues in the background, and its caller waits elsewhere.
    await step.sleep("cool-off", COOL_OFF)

    user = await in_thread.run("create-user", create_user, form, caller)
    mail_id = await in_thread.run("welcome-mail", welcome_mail, user)

    response.headers["Location"] = f"/users/{user.id}"
    response.headers["X-Welcome-Mail"] = str(mail_id)
    return {"id": user.id, "greeting": f"Hello {user.name}", "email": user.email, "by": caller}


class Order(BaseModel):
    key: str


def call_shaky_service(key: str) -> str:
    """Fails twice for each key, then works."""
    attempt = database.count_call("call-shaky-service", key)
    if attempt < 3:
        raise ConnectionError(f"the shaky service is down (attempt {attempt})")
    return f"confirmed {key} at attempt {attempt}"


@app.post("/flaky", status_code=201)
@provider.endpoint(id="flaky", retries=3)
async def flaky(order: Order) -> dict[str, str]:
    receipt = await in_thread.run("call-shaky-service", call_shaky_service, order.key)
    return {"key": order.key, "receipt": receipt}


# What happened so far. No steps in here: nothing of it is recorded anywhere.


@app.get("/users")
async def users() -> list[dict[str, Any]]:
    return database.rows("SELECT id, name, email, created_by FROM users ORDER BY id")


@app.get("/calls")
async def calls() -> list[dict[str, Any]]:
    """Return how often the body of each step ran, by step and subject."""
    return database.rows("SELECT step, subject, executions FROM calls ORDER BY rowid")
