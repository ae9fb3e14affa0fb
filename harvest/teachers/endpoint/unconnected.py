"""Why there is no connection, and what mends it: in a line, for the person at the keyboard."""

import errno
import socket
import ssl

import aiohttp
import httpx

_UNROUTED = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def explain_unconnected(error: httpx.TransportError) -> str:
    """Say why `error` (of an AiohttpTransport) is no connection, and what to look at; its own words where unknown."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        return f"the proxy answers {cause.status}: look at HTTPS_PROXY and HTTP_PROXY, name and password included"
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return _explain_certificate(cause)
    if not isinstance(cause, aiohttp.ClientConnectorError):
        return str(error)  # a timeout, say, which names itself
    where = f"{cause.host}:{cause.port}"
    why = _explain(cause.os_error, cause.host)
    if isinstance(cause, aiohttp.ClientProxyConnectionError):
        return f"the proxy {where}, which HTTPS_PROXY or HTTP_PROXY names, cannot be reached: {why}"
    if isinstance(cause.os_error, ssl.SSLError) and cause.os_error.reason not in _NOT_TLS:
        return f"no TLS connection to {where}: {cause.os_error.reason or cause.os_error}"
    if isinstance(cause.os_error, ssl.SSLError):
        return f"{where} does not speak TLS ({cause.os_error.reason}): is it http:// that --endpoint should begin with?"
    return f"no connection to {where}: {why}"


def _explain(error: OSError, host: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {host} is not known here: look at --endpoint, the network, and HTTPS_PROXY and HTTP_PROXY"
    if error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error):  # of several addresses
        return "nobody listens there: is the server running, and is that its port?"
    if error.errno in _UNROUTED:
        return f"there is no way there ({error.strerror}): look at the network, and whether a proxy is needed"
    return error.strerror or str(error)


def _explain_certificate(cause: aiohttp.ClientConnectorCertificateError) -> str:
    reason = getattr(cause.certificate_error, "verify_message", "") or str(cause.certificate_error)
    return (
        f"the certificate of {cause.host}:{cause.port} is not trusted ({reason}): name the authority that signed it in "
        "SSL_CERT_FILE"
    )
