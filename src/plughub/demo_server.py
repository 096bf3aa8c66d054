"""The demo server: a real MCP server over STDIO that a fresh hub can call at once.

It is the standard library only and imports nothing of plughub, so that `python -I demo_server.py` starts in some
20 ms whatever is installed. It speaks both eras of the protocol: the handshake revisions 2024-11-05 to 2025-11-25 (`initialize`) and
2026-07-28 (`server/discover`, the version in `_meta` of every request). The weather is invented: the same place always has the same.

Tools that wait run in threads of their own (at most `MAX_RUNNING`), so that they never hold up another call.
Arguments of the wrong shape (missing, unknown, wrong type) are error -32602; a value out of its range is a result with `isError`,
which a model can read and correct.

Source: CONTRACT section 5; MCP 2025-11-25 and 2026-07-28.
"""

import json
import math
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

JsonObject = dict[str, Any]
RequestId = str | int
Reply = Callable[[JsonObject | None], None]

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
BATCH_VERSION = "2025-03-26"
META = "io.modelcontextprotocol/"
SERVER_INFO = {"name": "plughub-demo", "title": "Plughub demo server", "version": "1.0.0"}
CAPABILITIES = {"tools": {"listChanged": False}, "resources": {"listChanged": False, "subscribe": False}, "prompts": {"listChanged": False}}
INSTRUCTIONS = "Invented weather for any place, and small tools to try a hub with: streaming, waiting and failing ones."
# The lists never change while the process lives; an hour is long enough for any cache.
LIST_TTL_MS = 3_600_000
MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_RUNNING = 64
THREAD_STACK_BYTES = 256 * 1024
TEXT_CHUNKS = 16
TEXT_PAUSE_S = 0.02

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
RESOURCE_NOT_FOUND, UNSUPPORTED_VERSION = -32002, -32022


class Fault(Exception):
    """Becomes a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error: JsonObject = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class Refused(Exception):
    """Becomes a tool result with `isError`: the caller can read it and try again."""


class Cancelled(Exception):
    """The client does not want the answer any more; none is sent."""


class Call:
    """One running tool call, as its tool sees it: a way to report progress and to wait."""

    __slots__ = ("_cancelled", "_notify", "_token", "wants_progress")

    def __init__(self, token: RequestId | None, notify: Callable[[JsonObject], None]) -> None:
        self._token = token
        self._notify = notify
        self._cancelled = threading.Event()
        self.wants_progress = token is not None

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Wait; raises Cancelled at once when the call is cancelled meanwhile."""
        if self._cancelled.wait(seconds):
            raise Cancelled

    def progress(self, done: float, total: float, message: str) -> None:
        """Send `notifications/progress`, if the caller asked for it."""
        if self.wants_progress:
            params = {"progressToken": self._token, "progress": done, "total": total, "message": message}
            self._notify({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


# --- the weather -----------------------------------------------------------------------------------------------------------------------

CONDITIONS = ("Sunny", "Partly cloudy", "Cloudy", "Light rain", "Rain", "Fog", "Windy", "Snow")
# Fahrenheit, conditions, humidity in percent. The first is the documents' example.
PLACES: dict[str, tuple[int, str, int]] = {
    "San Francisco, CA": (65, "Partly cloudy", 72),
    "New York, NY": (58, "Sunny", 55),
    "London": (52, "Light rain", 81),
    "Paris": (57, "Cloudy", 68),
    "Tokyo": (70, "Sunny", 60),
}
_KNOWN = {alias.lower(): facts for name, facts in PLACES.items() for alias in (name, name.split(",")[0])}


def _facts(location: str, day: int = 0) -> tuple[int, str, int]:
    """Fahrenheit, conditions, humidity of a place; the same for ever, since a checksum decides."""
    name = " ".join(location.lower().split())
    if day == 0 and name in _KNOWN:
        return _KNOWN[name]
    number = zlib.crc32(f"{name}/{day}".encode("utf-8", "replace"))
    return 25 + number % 70, CONDITIONS[(number >> 8) % len(CONDITIONS)], 20 + (number >> 16) % 76


def _degrees(fahrenheit: int, unit: str) -> int:
    return fahrenheit if unit == "fahrenheit" else round((fahrenheit - 32) * 5 / 9)


def _weather(location: str, unit: str) -> JsonObject:
    fahrenheit, conditions, humidity = _facts(location)
    degrees = _degrees(fahrenheit, unit)
    return {"location": location.strip(), "temperature": degrees, "unit": unit, "conditions": conditions, "humidity": humidity}


def _text(text: str) -> JsonObject:
    return {"content": [{"type": "text", "text": text}], "isError": False}


def _refusal(text: str) -> JsonObject:
    return {"content": [{"type": "text", "text": text}], "isError": True}


def _structured(value: JsonObject) -> JsonObject:
    return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": value, "isError": False}


# --- the tools: the docstring is the description a client sees --------------------------------------------------------------------------


def get_weather(arguments: JsonObject, call: Call) -> JsonObject:
    """Get current weather of a place (invented, but always the same)."""
    return _structured(_weather(arguments["location"], arguments.get("units", "fahrenheit")))


def get_forecast(arguments: JsonObject, call: Call) -> JsonObject:
    """Get the weather of a place for the coming days (invented, but always the same)."""
    location, days = arguments["location"], []
    for day in range(1, arguments["days"] + 1):
        high, conditions, humidity = _facts(location, day)
        days.append({"day": day, "high": high, "low": high - 8 - humidity % 9, "conditions": conditions, "humidity": humidity})
    return _structured({"location": location.strip(), "unit": "fahrenheit", "days": days})


def generate_report(arguments: JsonObject, call: Call) -> JsonObject:
    """Write a weather report in Markdown about the known places that the query names, or about all of them."""
    query = arguments["query"].strip()
    asked = [name for name in PLACES if name.split(",")[0].lower() in query.lower()]
    lines = [f"# Weather report: {query}", "", "| Place | Temperature | Conditions | Humidity |", "|---|---|---|---|"]
    for name in asked or PLACES:
        fahrenheit, conditions, humidity = PLACES[name]
        lines.append(f"| {name} | {fahrenheit} °F | {conditions} | {humidity} % |")
    return _text("\n".join(lines))


def generate_text(arguments: JsonObject, call: Call) -> JsonObject:
    """Write a text piece by piece: the messages of the progress notifications, put together, are the text of the result."""
    text = (
        f"You asked: {arguments['prompt'].strip()}\n"
        "This text comes from the demo server, a few words at a time, so that a client can show it while it grows. "
        "No language model is at work here: the same prompt always gets the same words."
    )
    if call.wants_progress:
        words = text.split(" ")
        size = math.ceil(len(words) / TEXT_CHUNKS)
        for at in range(0, len(words), size):
            end = at + size
            call.progress(min(end, len(words)), len(words), " ".join(words[at:end]) + (" " if end < len(words) else ""))
            call.pause(TEXT_PAUSE_S)
    return _text(text)


def echo(arguments: JsonObject, call: Call) -> JsonObject:
    """Give the text back unchanged."""
    return _text(arguments["text"])


def add(arguments: JsonObject, call: Call) -> JsonObject:
    """Add two numbers."""
    try:
        total = arguments["a"] + arguments["b"]
        if isinstance(total, float) and not math.isfinite(total):
            raise OverflowError
        return _text(json.dumps(total))
    except (OverflowError, ValueError):
        raise Refused("The sum is too large to write down") from None


def slow(arguments: JsonObject, call: Call) -> JsonObject:
    """Wait for some seconds, then answer; can be cancelled."""
    seconds, waited = arguments["seconds"], 0.0
    while waited < seconds:
        call.progress(waited, seconds, f"Waited {waited:g} of {seconds:g} seconds")
        step = min(1.0, seconds - waited)
        call.pause(step)
        waited += step
    return _text(f"Waited {seconds:g} seconds")


def fail(arguments: JsonObject, call: Call) -> JsonObject:
    """Answer with an error of the tool's own."""
    raise Refused(arguments["message"])


class Tool(NamedTuple):
    """A row of `TOOLS`. Arguments without a default are required; a tool that `waits` runs in a thread."""

    run: Callable[[JsonObject, Call], JsonObject]
    properties: dict[str, JsonObject]
    output: JsonObject | None = None
    waits: bool = False

    @property
    def required(self) -> list[str]:
        return [name for name, schema in self.properties.items() if "default" not in schema]

    def listed(self, name: str) -> JsonObject:
        schema = {"type": "object", "properties": self.properties, "required": self.required, "additionalProperties": False}
        row = {"name": name, "title": name.replace("_", " ").capitalize(), "description": self.run.__doc__, "inputSchema": schema}
        if self.output is not None:
            row["outputSchema"] = self.output
        return {**row, "annotations": {"readOnlyHint": True, "openWorldHint": False}}


def _object(**properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(properties)}


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
LOCATION = {"type": "string", "minLength": 1, "maxLength": 200, "description": "A place, for example 'San Francisco, CA'"}
UNITS = {"type": "string", "enum": ["fahrenheit", "celsius"], "default": "fahrenheit", "description": "Unit of the temperature"}
DAYS = {"type": "integer", "minimum": 1, "maximum": 14, "description": "How many days, 1 to 14"}
SECONDS = {"type": "number", "minimum": 0, "maximum": 300, "description": "How long to wait, 0 to 300"}
WEATHER = _object(location=STRING, temperature=INTEGER, unit=STRING, conditions=STRING, humidity=INTEGER)
DAY = _object(day=INTEGER, high=INTEGER, low=INTEGER, conditions=STRING, humidity=INTEGER)
FORECAST = _object(location=STRING, unit=STRING, days={"type": "array", "items": DAY})

TOOLS: dict[str, Tool] = {
    "get_weather": Tool(get_weather, {"location": LOCATION, "units": UNITS}, WEATHER),
    "get_forecast": Tool(get_forecast, {"location": LOCATION, "days": DAYS}, FORECAST),
    "generate_report": Tool(generate_report, {"query": {"type": "string", "description": "What the report is about"}}),
    "generate_text": Tool(generate_text, {"prompt": {"type": "string", "description": "What to write about"}}, waits=True),
    "echo": Tool(echo, {"text": STRING}),
    "add": Tool(add, {"a": NUMBER, "b": NUMBER}),
    "slow": Tool(slow, {"seconds": SECONDS}, waits=True),
    "fail": Tool(fail, {"message": STRING}),
}
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}


def _check_value(name: str, value: Any, schema: JsonObject) -> None:
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        raise Refused(f"Argument '{name}' must be one of: {', '.join(choices)}")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        raise Refused(f"Argument '{name}' must be between {schema['minimum']} and {schema['maximum']}")
    if "minLength" in schema and not (value.strip() and len(value) <= schema["maxLength"]):
        raise Refused(f"Argument '{name}' must have 1 to {schema['maxLength']} characters")


def check_arguments(tool: Tool, arguments: JsonObject) -> None:
    """Compare with the tool's `inputSchema`. Raises Fault for a wrong shape, Refused for a value out of range."""
    for name in tool.required:
        if name not in arguments:
            raise Fault(INVALID_PARAMS, f"Missing argument '{name}'")
    for name, value in arguments.items():
        schema = tool.properties.get(name)
        if schema is None:
            raise Fault(INVALID_PARAMS, f"Unknown argument '{name}'; known: {', '.join(tool.properties)}")
        if isinstance(value, bool) or not isinstance(value, TYPES[schema["type"]]):
            article = "an" if schema["type"] == "integer" else "a"
            raise Fault(INVALID_PARAMS, f"Argument '{name}' must be {article} {schema['type']}")
    for name, value in arguments.items():
        _check_value(name, value, tool.properties[name])


# --- resources and prompts -------------------------------------------------------------------------------------------------------------

LOCATIONS_URI, CURRENT_URI = "weather://locations", "weather://current/"
JSON_TYPE = "application/json"
LOCATIONS = {"uri": LOCATIONS_URI, "name": "locations", "title": "Known places", "mimeType": JSON_TYPE}
CURRENT = {"uriTemplate": CURRENT_URI + "{location}", "name": "current", "title": "Weather of a place", "mimeType": JSON_TYPE}
PROMPT = {"name": "plan_a_day", "title": "Plan a day", "description": "Ask whether the weather suits an activity"}
PROMPT_ARGUMENTS = [
    {"name": "location", "description": "Where", "required": True},
    {"name": "activity", "description": "What for; a walk when not said", "required": False},
]


def _percent_decoded(text: str) -> str:
    head, *rest = text.split("%")
    raw = head.encode("utf-8", "replace")
    for part in rest:
        try:
            raw += bytes([int(part[:2], 16)]) + part[2:].encode("utf-8", "replace")
        except ValueError:
            raw += b"%" + part.encode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def _string(params: JsonObject, name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str):
        raise Fault(INVALID_PARAMS, f"Parameter '{name}' must be a string")
    return value


def read_resource(params: JsonObject, version: str) -> JsonObject:
    """`weather://locations`, or `weather://current/{location}` percent-encoded."""
    uri = _string(params, "uri")
    if uri == LOCATIONS_URI:
        name, value = "locations", {"locations": list(PLACES)}
    elif uri.startswith(CURRENT_URI) and (place := _percent_decoded(uri[len(CURRENT_URI) :]).strip()):
        name, value = place, _weather(place, "fahrenheit")
    else:
        code = INVALID_PARAMS if version in MODERN_VERSIONS else RESOURCE_NOT_FOUND
        raise Fault(code, f"Resource not found: {uri}", {"uri": uri})
    return {"contents": [{"uri": uri, "name": name, "mimeType": JSON_TYPE, "text": json.dumps(value)}]}


def get_prompt(params: JsonObject, version: str) -> JsonObject:
    """The one prompt, filled in."""
    if _string(params, "name") != PROMPT["name"]:
        raise Fault(INVALID_PARAMS, f"Unknown prompt: {params['name']}")
    given = params.get("arguments", {})
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Fault(INVALID_PARAMS, "Prompt arguments must be an object of strings")
    if not given.get("location"):
        raise Fault(INVALID_PARAMS, "Missing argument 'location'")
    text = f"Is the weather in {given['location']} good for {given.get('activity') or 'a walk'}? Use the tool get_weather, then answer."
    return {"description": PROMPT["description"], "messages": [{"role": "user", "content": {"type": "text", "text": text}}]}


def _list_of(key: str, rows: list[JsonObject]) -> Callable[[JsonObject, str], JsonObject]:
    def listed(params: JsonObject, version: str) -> JsonObject:
        if params.get("cursor") is not None:
            raise Fault(INVALID_PARAMS, "Unknown cursor: every list here has one page")
        return {key: rows}

    return listed


# --- the protocol ----------------------------------------------------------------------------------------------------------------------


def initialize(params: JsonObject, version: str) -> JsonObject:
    """The handshake; an unknown revision is answered with the newest that has one."""
    asked = _string(params, "protocolVersion")
    chosen = asked if asked in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]
    return {"protocolVersion": chosen, "capabilities": CAPABILITIES, "serverInfo": SERVER_INFO, "instructions": INSTRUCTIONS}


def discover(params: JsonObject, version: str) -> JsonObject:
    """What 2026-07-28 has in place of the handshake."""
    return {"supportedVersions": list(MODERN_VERSIONS), "capabilities": CAPABILITIES, "instructions": INSTRUCTIONS}


METHODS: dict[str, Callable[[JsonObject, str], JsonObject]] = {
    "initialize": initialize,
    "ping": lambda params, version: {},
    "server/discover": discover,
    "tools/list": _list_of("tools", [tool.listed(name) for name, tool in TOOLS.items()]),
    "resources/list": _list_of("resources", [LOCATIONS]),
    "resources/templates/list": _list_of("resourceTemplates", [CURRENT]),
    "resources/read": read_resource,
    "prompts/list": _list_of("prompts", [{**PROMPT, "arguments": PROMPT_ARGUMENTS}]),
    "prompts/get": get_prompt,
}
CALL_METHOD = "tools/call"
HANDSHAKE_ONLY, MODERN_ONLY = frozenset({"initialize", "ping"}), frozenset({"server/discover"})
CACHEABLE = frozenset({"server/discover", "tools/list", "resources/list", "resources/templates/list", "resources/read", "prompts/list"})


def _success(request_id: RequestId, result: JsonObject, method: str, version: str) -> JsonObject:
    if version in MODERN_VERSIONS:
        result = {"resultType": "complete", **result, "_meta": {META + "serverInfo": SERVER_INFO}}
        if method in CACHEABLE:
            result |= {"ttlMs": LIST_TTL_MS, "cacheScope": "public"}
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _failure(request_id: RequestId | None, fault: Fault) -> JsonObject:
    return {"jsonrpc": "2.0", "id": request_id, "error": fault.error}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads and json.dumps with options build theirs for every message.
_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Batch:
    """Collects the answers to a batch of 2025-03-26; when the last is there, they leave as one array."""

    def __init__(self, size: int, send: Callable[[list[JsonObject]], None]) -> None:
        self._open = size
        self._send = send
        self._answers: list[JsonObject] = []
        self._guard = threading.Lock()

    def add(self, answer: JsonObject | None) -> None:
        with self._guard:
            self._open -= 1
            if answer is not None:
                self._answers.append(answer)
            if self._open == 0 and self._answers:
                self._send(self._answers)


class Server:
    """Reads messages line by line and writes the answers to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writing = threading.Lock()
        self._negotiated = ""
        self._running: dict[RequestId, tuple[Call, threading.Thread]] = {}
        self._guard = threading.Lock()

    def serve(self, source: BinaryIO) -> None:
        """Until the end of the input; then what still runs is cancelled."""
        inside_long_line = False
        while line := source.readline(MAX_LINE_BYTES):
            whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
            if whole and not inside_long_line:
                self._line(line)
            elif whole:
                self.write(_failure(None, Fault(PARSE_ERROR, f"A message may have at most {MAX_LINE_BYTES} bytes")))
            inside_long_line = not whole
        with self._guard:
            running = list(self._running.values())
        for call, _ in running:
            call.cancel()
        for _, thread in running:
            thread.join(1)

    def write(self, message: JsonObject | list[JsonObject]) -> None:
        data = memoryview(_encode(message).encode() + b"\n")
        with self._writing:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except BrokenPipeError:
                os._exit(0)  # Nobody reads us any more, whichever thread it was that noticed.

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = _decode(line.decode("utf-8"))
        except (ValueError, RecursionError):
            self.write(_failure(None, Fault(PARSE_ERROR, "Not a line of JSON in UTF-8")))
            return
        if isinstance(message, list) and message and self._negotiated == BATCH_VERSION:
            batch = Batch(len(message), self.write)
            for part in message:
                self._message(part, batch.add)
        else:
            self._message(message, self._reply)

    def _reply(self, answer: JsonObject | None) -> None:
        if answer is not None:
            self.write(answer)

    def _message(self, message: Any, reply: Reply) -> None:
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return reply(_failure(None, Fault(INVALID_REQUEST, "Not a JSON-RPC 2.0 message")))
        request_id, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if method is None and ("result" in message or "error" in message):
            return reply(None)  # The answer to a question that was never asked.
        if "id" not in message:
            self._notification(method, params)
            return reply(None)
        if not isinstance(method, str) or not isinstance(request_id, RequestId) or isinstance(request_id, bool):
            return reply(_failure(None, Fault(INVALID_REQUEST, "A request needs a method and an id (string or integer)")))
        try:
            if not isinstance(params, dict):
                raise Fault(INVALID_PARAMS, "params must be an object")
            version = self._version(method, params)
            if method == CALL_METHOD:
                return self._call_tool(request_id, params, version, reply)
            result = METHODS[method](params, version)
        except Fault as fault:
            return reply(_failure(request_id, fault))
        if method == "initialize":
            self._negotiated = result["protocolVersion"]
        return reply(_success(request_id, result, method, version))

    def _version(self, method: str, params: JsonObject) -> str:
        """The revision this request is in: named by itself, else the one agreed on by `initialize`, else empty."""
        meta = params.get("_meta", {})
        if not isinstance(meta, dict):
            raise Fault(INVALID_PARAMS, "_meta must be an object")
        version, absent = self._negotiated, MODERN_ONLY if self._negotiated else frozenset()
        if META + "protocolVersion" in meta:
            version, absent = meta[META + "protocolVersion"], HANDSHAKE_ONLY
            if not isinstance(version, str) or not isinstance(meta.get(META + "clientCapabilities"), dict):
                raise Fault(INVALID_PARAMS, f"_meta needs {META}protocolVersion (string) and {META}clientCapabilities (object)")
            if version not in MODERN_VERSIONS:
                supported = {"supported": list(MODERN_VERSIONS), "requested": version}
                raise Fault(UNSUPPORTED_VERSION, "Unsupported protocol version", supported)
        if method in absent or (method != CALL_METHOD and method not in METHODS):
            raise Fault(METHOD_NOT_FOUND, f"Method not found: {method}")
        if not version and method not in HANDSHAKE_ONLY:
            raise Fault(INVALID_PARAMS, f"Send initialize first, or {META}protocolVersion in _meta of every request")
        return version

    def _notification(self, method: Any, params: Any) -> None:
        if method == "notifications/cancelled" and isinstance(params, dict) and isinstance(params.get("requestId"), RequestId):
            with self._guard:
                found = self._running.get(params["requestId"])
            if found is not None:
                found[0].cancel()

    def _call_tool(self, request_id: RequestId, params: JsonObject, version: str, reply: Reply) -> None:
        name, arguments = _string(params, "name"), params.get("arguments", {})
        tool = TOOLS.get(name)
        if tool is None:
            raise Fault(INVALID_PARAMS, f"Unknown tool: {name}")
        if not isinstance(arguments, dict):
            raise Fault(INVALID_PARAMS, "Parameter 'arguments' must be an object")
        token = params.get("_meta", {}).get("progressToken")
        call = Call(token if isinstance(token, RequestId) else None, self.write)

        def work() -> None:
            answer = self._outcome(request_id, tool, arguments, call, version)
            with self._guard:
                self._running.pop(request_id, None)
            reply(answer)

        if not tool.waits:
            reply(self._outcome(request_id, tool, arguments, call, version))
        elif not self._start(request_id, call, threading.Thread(target=work, daemon=True)):
            busy = _refusal(f"{MAX_RUNNING} calls are running already; try again later")
            reply(_success(request_id, busy, CALL_METHOD, version))

    def _start(self, request_id: RequestId, call: Call, thread: threading.Thread) -> bool:
        with self._guard:
            if request_id in self._running:
                raise Fault(INVALID_REQUEST, "A request with this id is still running")
            if len(self._running) >= MAX_RUNNING:
                return False
            self._running[request_id] = call, thread
        thread.start()
        return True

    def _outcome(self, request_id: RequestId, tool: Tool, arguments: JsonObject, call: Call, version: str) -> JsonObject | None:
        try:
            check_arguments(tool, arguments)
            result = tool.run(arguments, call)
            call.check()
        except Cancelled:
            return None
        except Fault as fault:
            return _failure(request_id, fault)
        except Refused as refused:
            result = _refusal(str(refused))
        return _success(request_id, result, CALL_METHOD, version)


def main() -> None:
    """Serve on stdin and stdout until stdin ends."""
    if sys.stdin.isatty():
        sys.stderr.write("This is an MCP server: it reads JSON-RPC messages from its input, one a line. Let a client start it.\n")
    threading.stack_size(THREAD_STACK_BYTES)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Server(sys.stdout.fileno()).serve(sys.stdin.buffer)


if __name__ == "__main__":
    main()
