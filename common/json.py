"""The one encoder of JSON for clients."""

import msgspec

#: Any value, structs included, as JSON; `msgspec.Raw` is copied as it is.
encode = msgspec.json.Encoder().encode
