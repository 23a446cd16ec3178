"""Which headers and cookies are credentials, by their names and values (docs/design.md 3.7)."""

from __future__ import annotations

import re

_SECRETS = re.compile(
    rb"authorization|token|x-token|(?:.*-)?(?:"
    rb"(?:access|api|auth|bearer|functions|security|session|subscription|user)-?(?:key|token)|"
    rb"(?:id|private|vault)-?token|(?:session-?|s)id|session|auth|jwt|assertion|secret)"
)
"""Headers that others cannot know: they tell one caller from all others."""

_IDENTITIES = frozenset(
    {
        # Client certificates, by the proxies that ask for them.
        b"cf-client-cert-sha256",
        b"client-cert",
        b"ssl-client-cert",
        b"ssl-client-subject-dn",
        b"x-amzn-mtls-clientcert",
        b"x-amzn-mtls-clientcert-leaf",
        b"x-amzn-mtls-clientcert-subject",
        b"x-arr-clientcert",
        b"x-client-cert",
        b"x-client-certificate",
        b"x-client-dn",
        b"x-client-s-dn",
        b"x-forwarded-client-cert",
        b"x-forwarded-ssl-client-cert",
        b"x-forwarded-tls-client-cert",
        b"x-forwarded-tls-client-cert-info",
        b"x-ssl-cert",
        b"x-ssl-client-cert",
        b"x-ssl-client-dn",
        b"x-ssl-client-fingerprint",
        b"x-ssl-client-s-dn",
        b"x-ssl-client-sha1",
        b"x-ssl-client-subject",
        b"x-ssl-client-subject-dn",
        b"x-tls-client-cert",
        b"x-tls-client-dn",
        # Users, by the proxies that log them in.
        b"cf-access-authenticated-user-email",
        b"remote-email",
        b"remote-user",
        b"tailscale-user-login",
        b"x-account-id",
        b"x-amzn-oidc-identity",
        b"x-apigateway-api-userinfo",
        b"x-auth-request-email",
        b"x-auth-request-user",
        b"x-authenticated-user",
        b"x-authentik-uid",
        b"x-authentik-username",
        b"x-client-id",
        b"x-consumer-id",
        b"x-credential-identifier",
        b"x-endpoint-api-userinfo",
        b"x-forwarded-email",
        b"x-forwarded-user",
        b"x-goog-authenticated-user-email",
        b"x-goog-authenticated-user-id",
        b"x-ms-client-principal-id",
        b"x-ms-client-principal-name",
        b"x-org-id",
        b"x-pomerium-claim-sub",
        b"x-remote-user",
        b"x-tenant-id",
        b"x-user",
        b"x-user-email",
        b"x-user-id",
        b"x-userinfo",
        b"x-vouch-user",
        b"x-webauth-user",
    }
)
"""Headers that say who sent a request. Others may know them, so they do not stand alone."""

_OF_TOOLS = re.compile(
    # Statistics and chats that have sessions, too.
    r"_hj[a-z]+(?:_\d+)?$|ai_(?:user|session)$|_parsely_(?:session|visitor)$|optimizely|_pin_unauth$|"
    r"intercom-(?:id|session|device-id)-|(?:mp_.*_mixpanel|ph_.*_posthog)$|"
    # Balancers, which may be named after what is behind them.
    r"bigipserver|"
    # Tokens of forms, which change from page to page.
    r".*(?:csrf|xsrf)"
)
"""Names of cookies that are not the application's, or change with each page, whatever else they
look like."""
_PASSING = re.compile(
    # Statistics and advertisements.
    r"_ga(?:_[a-z0-9]+)?$|_gaexp|_gid$|_gat(?:_|$)|_gcl_|_gac_|_dc_gtm|__ga|__gpi|__utm|_fb[pc]$|"
    r"_pk_|mtm_|ajs_|mp_optout|amp_(?:mktg_)?[0-9a-f]{6,}|amplitude_|_cl[cs]k$|_uet[sv]id|_tt_enable|"
    r"_ttp$|ttcsid|_pin_|_scid|_rdt_|__hs|hubspotutk|_mkto_|_dd_s$|plausible_|_ym_|__kla_|_vwo_|_vis_opt|"
    # Balancers, and what tells people from machines.
    r"aws[ae]lb|gclb$|arraffinity|serverid$|route$|__cf|cf_(?:clearance|chl|ob_|use_ob)|_cfuvid$|"
    r"ak_bm|bm_[a-z]{1,3}$|_abck$|incap_|visid_|nlbi_|reese84|datadome|_px(?:\d|hd|vid|ff|_|$)|"
    # Consent.
    r"optanon|cookieconsent|cookielaw|cookieyes|euconsent"
)
"""The same for names that an application may have for the cookie of a session."""
_PREFIX = re.compile(r"__(?:host|secure)-")
_SESSIONS = frozenset(
    {
        "__session",
        "connect.sid",
        "fastapiusersauth",
        "jsessionid",
        "laravel_session",
        "phpsessid",
        "quart_auth",
        "session",
        "session_id",
        "sessionid",
        "sid",
    }
)
"""Names that frameworks give the cookies of their sessions, by default."""
_LIKE_SESSIONS = re.compile(
    r"sess|auth(?!or(?!i[sz]))|token|jwt|remember|identity|(?<![a-z])sid(?![a-z])"
)
"""What else such names have in them."""
SECRET_LENGTH = 16
"""Characters that a cookie's value must have to be one that cannot be guessed."""


def counts(header: bytes) -> bool:
    """Whether a header may say who sent a request, by its name."""
    return header in _IDENTITIES or _may_be_secret(header)


def _may_be_secret(header: bytes) -> bool:
    return _SECRETS.fullmatch(header) is not None and b"csrf" not in header


def is_secret(name: bytes, value: bytes) -> bool:
    """Whether a header tells callers from others. A password may be a whole site's."""
    return _may_be_secret(name) and value[:6].lower() != b"basic "


def is_personal(name: bytes, value: bytes) -> bool:
    """Whether a header certainly is one caller's, and not a key of all who use an application."""
    return name == b"authorization" and value[:7].lower() == b"bearer "


def passes(name: str, value: str) -> bool:
    """Whether a cookie is known to be something else than a credential."""
    plain = _PREFIX.sub("", name.lower())
    if _OF_TOOLS.match(plain):
        return True
    return _PASSING.match(plain) is not None and not opens(name, value)


def is_session(name: str) -> bool:
    """Whether a cookie may be that of a session, by its name."""
    return _LIKE_SESSIONS.search(name.lower()) is not None


def opens(name: str, value: str) -> bool:
    """Whether a cookie is certainly that of a session, and not a mark such as `remember_me=1`."""
    default = _PREFIX.sub("", name.lower()) in _SESSIONS
    return bool(value) and (default or (is_session(name) and len(value) >= SECRET_LENGTH))
