"""What must not get into a log, a table or a report: credentials in addresses and in errors.

A store may answer with what it was asked with: an expired session token comes back in the text
of the error, a signed URL with its signature. So every text of a store passes through here.
"""

from __future__ import annotations

import os
import re

__all__ = ["holds_secret", "names_secret", "without_secrets"]

_PARAMETERS = (
    "access_key|secret_key|session_token|aws_access_key_id|aws_secret_access_key|"
    "aws_session_token|access_token|account_key|sas_token|password|sig|signature|"
    "awsaccesskeyid|googleaccessid|x-amz-credential|x-amz-signature|x-amz-security-token|"
    "x-goog-credential|x-goog-signature"
)
# Key and secret before the bucket (gs://anonymous@ holds none; before the @ of abfs:// or hdfs://
# stands a container or a user, a secret only behind a colon), or settings behind a question mark.
_CREDENTIALS = re.compile(
    r"(?i)^(?:s3a?://[^/]*[:@]|gc?s://(?!anonymous@)[^/]*[:@]|[^:/]+://[^/]*:[^/]*@|"
    rf"[^:/]+://.*[?&](?:{_PARAMETERS})=)"
)
_IN_TEXT = (
    (re.compile(rf"(?i)\b({_PARAMETERS})=[^&\s\"'<>]+"), r"\1=***"),
    (
        re.compile(r"(?i)<(Token-\d+|AWSAccessKeyId|StringToSign|CanonicalRequest)>[^<]*"),
        r"<\1>***",
    ),
    (re.compile(r"(?i)\b(authorization|x-amz-security-token)([\"']?\s*[:=]\s*).*"), r"\1\2***"),
    (re.compile(r"(?i)\b(s3a?|gc?s)://[^/\s]*:[^@\s]*@"), r"\1://***@"),
)
# Variables of the environment; not TOKENIZERS_PARALLELISM, nor AWS_WEB_IDENTITY_TOKEN_FILE.
_NAMES = re.compile(
    r"(?i)(SECRET|TOKEN|PASSWORD|PASSWD|(ACCESS|ACCOUNT|API|PRIVATE|STORAGE)_?KEY|"
    r"CONNECTION_STRING)S?(_|$)(?!.*(FILE|PATH|URI|URL)S?$)"
)
_MIN_LENGTH = 8  # a shorter value may be a word, as "test" is


def holds_secret(address: str) -> bool:
    """Whether credentials stand in an address.

    Example:
        >>> holds_secret("s3://KEY:SECRET@bucket/photos"), holds_secret("s3://bucket/a@b:c?d=e")
        (True, False)
    """
    return _CREDENTIALS.search(address) is not None


def names_secret(variable: str) -> bool:
    """Whether a variable of the environment with this name holds a credential.

    Example:
        >>> names_secret("AWS_SECRET_ACCESS_KEY"), names_secret("AWS_WEB_IDENTITY_TOKEN_FILE")
        (True, False)
    """
    return _NAMES.search(variable) is not None


def without_secrets(text: str) -> str:
    """A text with *** for each credential in it: of a signed URL, a header, the environment.

    Example:
        >>> without_secrets("GET https://store/a?X-Amz-Signature=0a1b&x=1 failed")
        'GET https://store/a?X-Amz-Signature=***&x=1 failed'
    """
    for name, value in os.environ.items():
        if len(value) >= _MIN_LENGTH and value in text and names_secret(name):
            text = text.replace(value, "***")
    for pattern, shown in _IN_TEXT:
        text = pattern.sub(shown, text)
    return text
