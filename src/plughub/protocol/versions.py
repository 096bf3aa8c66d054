"""The revisions of MCP. Legacy ones shake hands with `initialize`; modern ones say their revision in every request."""

LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
MODERN = ("2026-07-28",)
SUPPORTED = MODERN + LEGACY
LATEST_LEGACY = LEGACY[0]
LATEST = MODERN[0]
# A request without the header comes from a revision that had none (MCP 2025-06-18, "Protocol Version Header").
ASSUMED = "2025-03-26"
# The one revision whose clients may send several messages at once.
BATCHING = "2025-03-26"

META = "io.modelcontextprotocol/"
META_VERSION = META + "protocolVersion"
META_CAPABILITIES = META + "clientCapabilities"
META_SERVER_INFO = META + "serverInfo"
META_CLIENT_INFO = META + "clientInfo"
META_LOG_LEVEL = META + "logLevel"
META_SUBSCRIPTION_ID = META + "subscriptionId"


def negotiate(requested: str, server: str = LATEST_LEGACY) -> str:
    """The revision that `initialize` answers: the requested one if it is a legacy one we speak, else our latest legacy one; never a
    later one than `server` speaks, when that is a legacy one too.
    """
    found = requested if requested in LEGACY else LATEST_LEGACY
    return min(found, server) if server in LEGACY else found
