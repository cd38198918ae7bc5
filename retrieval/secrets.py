"""What must not get into a log, a table or a report: credentials in addresses, texts and settings.

A store may answer with what it was asked with: an expired session token comes back in the text
of the error, a signed URL with its signature. So every text of others passes through here. What
a credential is called is decided in one place, and generously: to refuse or to hide a name too
many costs little.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

__all__ = ["holds_secret", "names_secret", "scheme_of", "without_secrets"]

# In a name these tell of a credential, wherever they stand ...
_STRONG = re.compile(
    r"secret|token|passw|passphrase|credential|signature|cookie|bearer|jwt|"
    r"(access|account|api|auth|private|storage|shared|encryption)_?keys?(id)?(?![a-z])|"
    r"connection_?string|googleaccessid"
)
# ... these as words, or at the end of one: DB_PWD, GHPAT, secretKey.
_WEAK = re.compile(
    r"(^|_)(pw|pin|otp|cred|creds|auth|authorization|sig|session|sas|policy)(_|$)|"
    r"(key|pass|pwd|pat|dsn|auth)(_|$)|._keys(_|$)"
)
# And these are none: what counts, where a file lies, how long something lasts.
_HARMLESS = re.compile(
    r"tokeniz|^(xdg|dbus)_|compat$|bypass$|"
    r"_(files?|paths?|uris?|urls?|dir|sock|mode|type|port|timeout|parallelism)$"
)

_ADDRESS = re.compile(r"(?i)^(?:[a-z][a-z0-9+.-]*:/+|(?:s3[an]?|gc?s|abfss?|az|wasbs?|hdfs):)")
# Before the @ of these stands a container or a user, a secret only behind a colon.
_USERS = r"abfss?|wasbs?|az|hdfs|viewfs|sftp|ssh|git\+ssh|ftp"
_USERINFO = (
    r"file://[^/@\s:]*:[^/@\s]*@|"
    r"s3[an]?:/*[^/@\s?]*:[^@\s?]*@|s3[an]?:/+[^/@\s:]*@|"
    r"gc?s:/*(?!anonymous@)[^/\s?]*[:@][^@\s?]*@?(?<=@)|"
    rf"(?!(?:s3[an]?|gc?s|file|{_USERS}):)[a-z][a-z0-9+.-]*:/+[^/@\s:?]+@|"
    # Behind a host stands the number of a port, behind a user a password, maybe with slashes.
    r"(?!(?:s3[an]?|gc?s|file):)[a-z][a-z0-9+.-]*:/+[^/@\s:\[?]*:(?!\d{1,5}(?:[/?#\s]|$))[^@\s?]*@|"
    r"(?!(?:s3[an]?|gc?s|file):)[a-z][a-z0-9+.-]*:/+[^/@\s:\[?]*:\d{1,5}@"
)
_IS_USERINFO = re.compile(rf"(?i)^(?:{_USERINFO})")
_IN_TEXT_USERINFO = re.compile(rf"(?i)(?<![a-z0-9+.-])(?:{_USERINFO})")
_PARAMETER = re.compile(r"(?:(?<=[?&;#])|(?<=; ))([^=&;#?\s]{1,100})=([^&;#\s\"'<>]*)")
_ASSIGNED = re.compile(
    r"(?<![\w?&;#.-])([A-Za-z][\w.-]{0,99})([\"']?\s?[=:](?!=)\s?)"
    r"(\"[^\"]*\"|'[^']*'|[^&\s\"'<>;,)}]+)"
)

# What looks like a credential under any name, and headers that carry one.
_SHAPES = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z ]*-----|$)", re.S), "***"),
    (
        re.compile(r"(?i)<(Token-\d+|AWSAccessKeyId|StringToSign|CanonicalRequest)>[^<]*"),
        r"<\1>***",
    ),
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-[a-z-]*-token)"
            r"([\"']?\s*[:=]\s*).*"
        ),
        r"\1\2***",
    ),
    (
        re.compile(
            r"(?i)\b(passw(?:or)?d|passphrase|secret(?:[_-]?key)?|(?:api|access)[_-]?key)(: ?)"
            r"[^\s,;)}]+"
        ),
        r"\1\2***",
    ),
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"\b(Basic)\s+(?=[^\s]*[\d=])[A-Za-z0-9+/]{8,}={0,2}(?!\w)"), r"\1 ***"),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}(?::[^\s@\"']+)?"), "***"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), "***"),
    (
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|"
            r"hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|AIza[\w-]{30,}|"
            r"ya29\.[\w-]{16,}|xox[abeprs]-[\w-]{10,}|[sr]k-[A-Za-z0-9][\w-]{18,}|"
            r"[sr]k_(?:live|test)_\w{10,}|SG\.[\w-]{16,}\.[\w-]{16,})"
        ),
        "***",
    ),
)
_MIN_LENGTH = 8  # a shorter value may be a word, as "test" is


def names_secret(variable: str) -> bool:
    """Whether a variable, a setting or a parameter with this name holds a credential.

    Example:
        >>> [names_secret(name) for name in ("AWS_SECRET_ACCESS_KEY", "DB_PWD", "secretKey")]
        [True, True, True]
        >>> names_secret("AWS_WEB_IDENTITY_TOKEN_FILE"), names_secret("TOKENIZERS_PARALLELISM")
        (False, False)
    """
    name = _snake_case(variable)
    if _HARMLESS.search(name) or variable in ("PWD", "OLDPWD"):  # of a shell: its folder
        return False
    return bool(_STRONG.search(name) or _WEAK.search(name))


def holds_secret(address: str) -> bool:
    """Whether credentials stand in an address, also where they or its slashes are misspelled.

    Example:
        >>> holds_secret("s3://KEY:SECRET@bucket/photos"), holds_secret("s3://bucket/a@b:c?d=e")
        (True, False)
        >>> holds_secret("s3:/KEY:SECRET@bucket"), holds_secret("https://host/a?token=b")
        (True, True)
    """
    if "@" not in address and "=" not in address and "%" not in address:
        return False  # so are most of the million addresses of a catalogue
    return any(
        _ADDRESS.search(form)
        and (_IS_USERINFO.search(form) or any(map(names_secret, _parameters(form))))
        for form in _decoded(address)
    )


def scheme_of(address: str) -> str:
    """What may be told of an address that holds credentials.

    Example:
        >>> scheme_of("s3%3A//KEY:SECRET@bucket")
        's3'
    """
    return unquote(unquote(address)).partition(":")[0]


def without_secrets(text: str) -> str:
    """A text with *** for each credential in it: of a signed URL, a header, the environment.

    Example:
        >>> without_secrets("GET https://store/a?X-Amz-Signature=0a1b&x=1 failed")
        'GET https://store/a?X-Amz-Signature=***&x=1 failed'
    """
    for name, value in os.environ.items():
        for secret in _secrets_of(name, value):
            for form in (secret, quote(secret, safe="")):
                text = text.replace(form, "***")
    for pattern, shown in _SHAPES:
        text = pattern.sub(shown, text)
    text = _IN_TEXT_USERINFO.sub(lambda found: f"{scheme_of(found[0])}://***@", text)
    text = _PARAMETER.sub(
        lambda found: f"{found[1]}=***" if names_secret(unquote(found[1])) else found[0], text
    )
    text = _ASSIGNED.sub(_hidden, text)
    if "%" in text:
        text = re.sub(r"\S*%\S*", lambda word: _encoded(word[0]), text)
    return text


def _snake_case(name: str) -> str:
    """secretKey, Secret-Key and SECRET.KEY as secret_key."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return "_".join(parts).lower()


def _parameters(address: str) -> Iterator[str]:
    return (found[1] for found in _PARAMETER.finditer(address))


def _decoded(text: str) -> Iterator[str]:
    """A text as it stands, and with its %XX read once and twice."""
    for _ in range(3):
        yield text
        decoded = unquote(text)
        if decoded == text:
            return
        text = decoded


def _secrets_of(name: str, value: str) -> Iterator[str]:
    """What must not be shown of a variable of the environment."""
    if len(value) < _MIN_LENGTH:
        return
    # The path of a key is no key; and any text may be asked for, as Path.exists allows not.
    is_path = value.startswith("/") and os.path.exists(value)  # noqa: PTH110
    if names_secret(name) and not is_path:
        yield value
    elif "://" in value and "@" in value:  # a proxy, a database
        user, _, password = value.partition("://")[2].rpartition("@")[0].partition(":")
        if len(password or user) >= _MIN_LENGTH:
            yield password or user


def _hidden(found: re.Match[str]) -> str:
    """NAME=***, where only a credential is called so: key=3 is the name of a folder, too."""
    name = found[1]
    is_variable = name.isupper() and "_" in name
    is_secret = names_secret(name) and (is_variable or _STRONG.search(_snake_case(name)))
    # Not a sentence, as "token: refused", nor a version of a package, as pyjwt=2.1.
    is_prose = ":" in found[2] and not is_variable and found[2][0] not in "\"'"
    if not is_secret or is_prose or re.fullmatch(r"\d+\.\d[\w.]*", found[3]):
        return f"{name}{found[2]}{_ASSIGNED.sub(_hidden, found[3])}"
    return f"{name}{found[2]}***"


def _encoded(word: str) -> str:
    """A word that holds an address; without it, if its credentials are spelled with %XX."""
    start = re.search(r"(?i)[a-z][a-z0-9+.-]*(?:%(?:25)*3a|:)(?:%(?:25)*2f|/)*", word)
    if start is None or "***" in word or not holds_secret(unquote(unquote(word[start.start() :]))):
        return word
    return f"{word[: start.start()]}{scheme_of(start[0])}://***"
