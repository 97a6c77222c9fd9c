"""How each gateway is started: its command, and the configuration files that it reads.

Every gateway stays in the foreground, listens on loopback, keeps its files in one directory and needs no other user, so
that the tests can be run as root and as anybody else.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """The PEM files of a TLS server: its certificate, its key, both in one, and the authority of its clients."""

    chain: str
    key: str
    combined: str
    client_authority: str


class Site(NamedTuple):
    """Where a gateway listens, where it keeps its files, and which port on loopback it passes requests to."""

    port: int
    directory: Path
    target: int


class Plan(NamedTuple):
    """The command of a gateway, and its files by name, relative to its directory."""

    command: list[str]
    files: Mapping[str, str]


def nginx(
    site: Site,
    *,
    timeout: float = 60,
    location: str = "",
    server: str = "",
    http: str = "",
    upstream: str = "",
    tls: Certificate | None = None,
    client_certificate: bool = False,
) -> Plan:
    """The reverse proxy nginx. `location`, `server` and `http` are more directives of these blocks.

    `upstream` is the name of a group of servers in `http` that takes the place of the target.
    """
    if tls:
        server += f"ssl_certificate {tls.chain}; ssl_certificate_key {tls.key}; ssl_protocols TLSv1.2 TLSv1.3;"
    if tls and client_certificate:
        server += f"ssl_verify_client on; ssl_client_certificate {tls.client_authority};"
    paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    configuration = f"""
daemon off;
master_process off;
pid {site.directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {" ".join(f"{path}_temp_path {site.directory}/{path};" for path in paths)}
    {http}
    server {{
        listen 127.0.0.1:{site.port}{" ssl" if tls else ""};
        {server}
        location / {{
            proxy_pass http://{upstream or f"127.0.0.1:{site.target}"};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout {timeout}s;
            {location}
        }}
    }}
}}
"""
    command = ["nginx", "-p", str(site.directory), "-e", "stderr", "-c", str(site.directory / "nginx.conf")]
    return Plan(command, {"nginx.conf": configuration})


def haproxy(
    site: Site,
    *,
    timeout: float = 60,
    backend: str = "",
    tls: Certificate | None = None,
    client_certificate: bool = False,
) -> Plan:
    """The load balancer haproxy. `backend` are more lines of that section."""
    bind = f"ssl crt {tls.combined}" if tls else ""
    if tls and client_certificate:
        bind += f" ca-file {tls.client_authority} verify required"
    configuration = f"""
defaults
    mode http
    timeout client 60s
    timeout connect 5s
    timeout server {round(timeout * 1000)}ms
frontend public
    bind 127.0.0.1:{site.port} {bind}
    default_backend proctor
backend proctor
    {backend}
    server proctor 127.0.0.1:{site.target}
"""
    return Plan(["haproxy", "-db", "-f", str(site.directory / "haproxy.cfg")], {"haproxy.cfg": configuration})


def apache(site: Site, *, timeout: float = 60) -> Plan:
    """The web server Apache as a reverse proxy. Started as root it becomes another user."""
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in ("mpm_event", "authz_core", "proxy", "proxy_http")
    )
    configuration = f"""
ServerName apache.test
ServerRoot {site.directory}
DefaultRuntimeDir {site.directory}
PidFile apache.pid
ErrorLog /dev/stderr
User nobody
Group nogroup
{modules}
Listen 127.0.0.1:{site.port}
ProxyPass / http://127.0.0.1:{site.target}/ timeout={round(timeout)}
"""
    return Plan(["apache2", "-X", "-f", str(site.directory / "apache.conf")], {"apache.conf": configuration})


def varnish(site: Site, *, timeout: float = 60) -> Plan:
    """The cache Varnish, which passes each POST on."""
    vcl = f"""
vcl 4.1;
backend proctor {{ .host = "127.0.0.1"; .port = "{site.target}"; .first_byte_timeout = {timeout}s; }}
"""
    listen = ["-a", f"127.0.0.1:{site.port}", "-n", str(site.directory / "work")]
    small = ["-s", "malloc,1m", "-p", "vsl_space=1m", "-p", "thread_pool_min=10"]
    command = ["varnishd", "-F", "-j", "none", "-T", "none", "-f", str(site.directory / "proctor.vcl"), *listen, *small]
    return Plan(command, {"proctor.vcl": vcl})


def stunnel(
    site: Site, *, timeout: float = 60, tls: Certificate | None = None, client_certificate: bool = False
) -> Plan:
    """The TLS terminator stunnel, which knows nothing of HTTP."""
    assert tls
    verification = f"verifyChain = yes\nCAfile = {tls.client_authority}" if client_certificate else ""
    configuration = f"""
foreground = yes
pid =
[proctor]
accept = 127.0.0.1:{site.port}
connect = 127.0.0.1:{site.target}
cert = {tls.combined}
TIMEOUTidle = {round(timeout)}
{verification}
"""
    return Plan(["stunnel4", str(site.directory / "stunnel.conf")], {"stunnel.conf": configuration})


USER, PASSWORD = "proxy-user", "proxy-pass"


def squid(site: Site, *, timeout: float = 60, login: bool = False) -> Plan:
    """The forward proxy squid, for http and, by CONNECT, for https.

    Started as root it becomes another user, who cannot read its directory: the login is checked without a file.
    """
    access = "http_access allow all"
    if login:
        access = f"""
auth_param basic program /bin/sed -u s/^{USER}.{PASSWORD}$/OK/;t;s/.*/ERR/
auth_param basic children 1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"""
    configuration = f"""
http_port 127.0.0.1:{site.port}
{access}
read_timeout {round(timeout)} seconds
cache deny all
access_log none
cache_store_log none
cache_log /dev/null
pid_filename none
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
visible_hostname squid.test
"""
    name = f"squid{site.port}"  # of its shared memory, which no two may have in common
    return Plan(["squid", "-N", "-n", name, "-f", str(site.directory / "squid.conf")], {"squid.conf": configuration})


def tinyproxy(site: Site, *, timeout: float = 60, login: bool = False) -> Plan:
    """The forward proxy tinyproxy, which closes the connection after each response without announcing it."""
    configuration = f"""
Port {site.port}
Listen 127.0.0.1
Timeout {round(timeout)}
{f"BasicAuth {USER} {PASSWORD}" if login else ""}
"""
    return Plan(["tinyproxy", "-d", "-c", str(site.directory / "tinyproxy.conf")], {"tinyproxy.conf": configuration})


FORWARD: dict[str, Callable[..., Plan]] = {"squid": squid, "tinyproxy": tinyproxy}
REVERSE: dict[str, Callable[..., Plan]] = {
    "apache": apache,
    "haproxy": haproxy,
    "nginx": nginx,
    "stunnel": stunnel,
    "varnish": varnish,
}
PLANS = FORWARD | REVERSE
HTTP_GATEWAYS = sorted(PLANS.keys() - {"stunnel"})
