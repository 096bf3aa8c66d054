"""Mail by SMTP."""

import asyncio
import ssl
from urllib.parse import unquote, urlsplit

from plughub.identity.letters import Mail
from plughub.settings import Settings

_TIMEOUT_S = 20.0
_PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


class Mailer:
    """Sends one mail a call, in a thread. `smtp://` insists on STARTTLS, `smtps://` is TLS from the start, `smtp+plain://` is neither."""

    def __init__(self, settings: Settings) -> None:
        self._url = urlsplit(settings.smtp_url)
        self._sender = settings.mail_from

    @property
    def enabled(self) -> bool:
        """Whether there is a mail server."""
        return bool(self._url.hostname)

    async def send(self, mail: Mail) -> None:
        """Raises OSError, smtplib.SMTPException (an OSError too)."""
        await asyncio.to_thread(self._send, mail)

    def _send(self, mail: Mail) -> None:
        # Loaded by the first mail: with the parsers of mail it costs as much memory as all of identity.
        import smtplib
        from email.message import EmailMessage
        from email.utils import formatdate, make_msgid

        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, mail.to, mail.subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=self._sender.rpartition("@")[2].rstrip(">") or None)
        message.set_content(mail.text)
        host, port = self._url.hostname or "", self._url.port or _PORTS[self._url.scheme]
        if self._url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        else:
            server = smtplib.SMTP(host, port, timeout=_TIMEOUT_S)
        with server:
            if self._url.scheme == "smtp":
                server.starttls(context=ssl.create_default_context())
            if self._url.username:
                server.login(unquote(self._url.username), unquote(self._url.password or ""))
            server.send_message(message)
