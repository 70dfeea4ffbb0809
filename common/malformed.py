"""What a client that does not send HTTP is told, in one sentence.

The rule of the file: repeat nothing that was sent. The parser quotes the line that it could not read, and that may be
a header with a secret.
"""

from aiohttp import http_exceptions

#: What aiohttp's parser says, by its beginning, in our words.
_MALFORMED = (
    ("Missing 'Host'", "The header `Host` is missing; HTTP/1.1 needs it"),
    ("Too many headers", "The request has too many headers; send fewer"),
    ("Transfer-Encoding can't be present", "`Content-Length` and `Transfer-Encoding` exclude each other; send one"),
    ("Content-Length can't be present", "`Content-Length` and `Transfer-Encoding` exclude each other; send one"),
    ("Invalid character in chunk size", "The body is not chunked as HTTP asks"),
    ("Received HTTPS traffic", "This port speaks HTTP, not HTTPS; use http://, or put a proxy for TLS in front"),
    ("Invalid method", "This is not a method that HTTP knows"),
    ("Pause on PRI", "This port speaks HTTP/1.1, not HTTP/2"),
)


def sentence_for(error: http_exceptions.HttpProcessingError) -> str:
    """Why the parser refused a request, and what would be right."""
    if isinstance(error, http_exceptions.LineTooLong):
        return f"The request line or a header is over {error.args[1]} bytes; send less in it."
    for beginning, words in _MALFORMED:
        if error.message.removeprefix("Bad status line:").lstrip().startswith(beginning):
            return f"{words}."
    if isinstance(error, http_exceptions.InvalidURLError):
        return "The address is not one that HTTP knows; check what stands between the method and the version."
    if isinstance(error, http_exceptions.BadStatusLine):
        return "The first line is not one of HTTP; it is like `GET /health HTTP/1.1`."
    return "The request is not as HTTP asks; check its headers, and how its body is sent."
