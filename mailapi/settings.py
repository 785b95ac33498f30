"""Every setting, from the environment; secrets also from NAME_FILE. docs/operations.md explains each.

Without DATABASE_URL the parts that `manage.py up` runs are found through var/up.json.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from deliveries import retry
from deliveries.smtp import sources
from mailapi import logs
from mailapi.environment import (
    SOURCES,
    addr_spec,
    authorities,
    flag,
    host_name,
    host_port,
    ip,
    ip_port,
    log_level,
    network,
    number,
    port,
    text,
    url,
    words,
)
from mailapi.panel import UNFOLD as UNFOLD

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("MAILAPI_VAR") or BASE_DIR / "var")

if not (os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE")):
    from mailapi.up.discover import environ_from_up

    for _name, _value in environ_from_up(VAR).items():
        if _name not in os.environ:
            os.environ[_name], SOURCES[_name] = _value, "running `up`"

#: by variable: environment, file PATH, running `up` or default; told by the panel's page of settings
SETTING_SOURCES = SOURCES


def database(address: str) -> dict[str, object]:
    """DATABASE_URL (postgres://user:password@host:port/name?sslmode=…) as Django takes it."""
    parts = urlsplit(address)
    options: dict[str, object] = {k: v for k, _, v in (p.partition("=") for p in parts.query.split("&")) if v}
    options.setdefault("connect_timeout", 5)
    # a host that vanished says nothing for hours otherwise; libpq ignores these on a Unix socket
    options.setdefault("keepalives_idle", 15)
    options.setdefault("keepalives_interval", 5)
    options.setdefault("keepalives_count", 3)
    options.setdefault("tcp_user_timeout", 30_000)
    # Django's default, None, switches preparing off even where a statement asks for it (models/sql.py)
    options.setdefault("prepare_threshold", 5)
    # every statement is short; where the planner cannot know how few rows it takes, compiling would cost 100 ms
    session = f"-c statement_timeout={_STATEMENT_TIMEOUT_MS[ROLE]} -c lock_timeout={_LOCK_TIMEOUT_MS[ROLE]} -c jit=off"
    # the server too asks whether we are there: a host that is cut off within a transaction would hold its locks, and
    # with them mail of everybody, until the kernel gives up after two hours
    session += " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"
    session += " -c tcp_user_timeout=20000"
    if ROLE != "command":  # a migration, or a person in `shell`, may think for longer
        session += " -c idle_in_transaction_session_timeout=30000"
    if ROLE in ("web", "smtpd", "deliver"):
        # accept's statement runs for 0.7 ms and is planned for 2.3 ms, a claim for 0.3 and 0.9 ms; no plan of theirs
        # depends on the values: all goes by keys
        session += " -c plan_cache_mode=force_generic_plan"
    if ROLE == "deliver":
        # a plan that was made while a table was empty serves until autovacuum has looked: it must go by keys, too
        session += " -c enable_seqscan=off"
    options["options"] = session
    options["pool"] = {"min_size": 0, "max_size": POOL_SIZE, "timeout": 10, "max_idle": 60}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or 5432,
        "CONN_MAX_AGE": 0,
        "OPTIONS": options,
    }


# --- which process this is: each has its own time limits and number of connections -------------------------
ROLE = text("MAILAPI_ROLE", "command")
_STATEMENT_TIMEOUT_MS = {"web": 5000, "deliver": 30000, "jobs": 30000, "smtpd": 30000, "beat": 30000, "command": 0}
_LOCK_TIMEOUT_MS = {"web": 2000, "deliver": 5000, "jobs": 5000, "smtpd": 2000, "beat": 5000, "command": 5000}
if ROLE not in _STATEMENT_TIMEOUT_MS:
    raise ImproperlyConfigured(f"MAILAPI_ROLE={ROLE!r} is none of {', '.join(_STATEMENT_TIMEOUT_MS)}")
WEB_THREADS = int(number("WEB_THREADS", 8, 1))
WEB_LEAVING = text("WEB_LEAVING", "")
ALIVE_FILE = text("ALIVE_FILE", "")
ON_DEMAND_TLS = flag("ON_DEMAND_TLS")
# web: one more for the log of requests
POOL_SIZE = {"web": WEB_THREADS + 1, "deliver": 4, "jobs": 2, "smtpd": 6, "beat": 1, "command": 6}[ROLE]

# --- parts --------------------------------------------------------------------------------------------------
DATABASES = {"default": database(url("DATABASE_URL", ("postgres", "postgresql")))}
BROKER_URL = url("BROKER_URL", ("redis", "rediss", "amqp", "amqps"))
REDIS_URL = url("REDIS_URL", ("redis", "rediss"), BROKER_URL if BROKER_URL.startswith("redis") else "")

# --- secrets ------------------------------------------------------------------------------------------------
SECRET_KEY = text("SECRET_KEY")
FIELD_KEYS = text("FIELD_KEYS")
METRICS_TOKEN = text("METRICS_TOKEN", "")
VERP_KEYS = text("VERP_KEYS")

# --- where mail goes ----------------------------------------------------------------------------------------
MAIL_ROUTE = text("MAIL_ROUTE", "sandbox")
if MAIL_ROUTE not in ("sandbox", "mx"):
    raise ImproperlyConfigured(f"MAIL_ROUTE={MAIL_ROUTE!r} is neither sandbox nor mx")
SANDBOX = MAIL_ROUTE == "sandbox"
SANDBOX_SMTP = host_port("SANDBOX_SMTP")
SANDBOX_DOMAIN = host_name("SANDBOX_DOMAIN", "simulator.test")
SANDBOX_SPOOL = text("SANDBOX_SPOOL", "")
MAIL_ROUTES = text("MAIL_ROUTES", "")
DNS_NAMESERVERS = tuple(ip_port("DNS_NAMESERVERS", w) for w in words("DNS_NAMESERVERS"))
DNS_TRUST_AD = flag("DNS_TRUST_AD")
SMTP_PORT = port("SMTP_PORT", 25)
SMTP_CA_FILE = authorities("SMTP_CA_FILE")
MTA_STS_PORT = port("MTA_STS_PORT", 443)
MX_ALLOW_PRIVATE = flag("MX_ALLOW_PRIVATE")
#: asked by the doctor alone, whether our addresses are listed
DNS_BLOCK_LISTS = () if SANDBOX else words("DNS_BLOCK_LISTS", "zen.spamhaus.org,bl.spamcop.net")
HELO_NAME = host_name("HELO_NAME", "mail.localhost.localdomain")
SOURCE_IPS = tuple(ip("SOURCE_IPS", w) for w in words("SOURCE_IPS"))
try:
    WARM_UP = tuple(int(w) for w in words("WARM_UP")) or sources.WARM_UP
    if not all(0 < w <= 1_000_000_000 for w in WARM_UP):
        raise ValueError
except ValueError:
    raise ImproperlyConfigured("WARM_UP is a list of mails a day, such as 50,100,250: whole numbers above 0") from None
BOUNCE_DOMAIN = host_name("BOUNCE_DOMAIN", "bounce.localhost.localdomain")
# where the MX of a return path points; smtpd may stand on another host than the one that sends
MX_NAME = host_name("MX_NAME", HELO_NAME)
SMTPD_INBOUND = host_port("SMTPD_INBOUND")
SMTPD_SUBMISSION = host_port("SMTPD_SUBMISSION")
SMTPD_SUBMISSIONS = host_port("SMTPD_SUBMISSIONS")
SMTPD_CERT_FILE = text("SMTPD_CERT_FILE", "")
SMTPD_KEY_FILE = text("SMTPD_KEY_FILE", "")
SMTPD_AUTH_WITHOUT_TLS = flag("SMTPD_AUTH_WITHOUT_TLS")

# --- how it goes --------------------------------------------------------------------------------------------
try:
    RETRY = retry.schedule(
        text("RETRY_SCHEDULE", ""),
        number("MAX_AGE", 0),
        number("UNKNOWN_WAIT_S", 0),
        retry.SANDBOX if SANDBOX else retry.DEFAULT,
    )
except ValueError as _error:
    raise ImproperlyConfigured(str(_error)) from None
DSN_DELAY_S = number("DSN_DELAY_S", 30 if SANDBOX else 4 * 3600, 1)
UNKNOWN_POLICY = text("UNKNOWN_POLICY", "retry")
if UNKNOWN_POLICY not in ("retry", "hold"):
    raise ImproperlyConfigured(f"UNKNOWN_POLICY={UNKNOWN_POLICY!r} is neither retry nor hold")
# in the sandbox bounces are made on purpose
BRAKES = flag("BRAKES", not SANDBOX)
LEASE_S = number("LEASE_S", 60, 2)
DRAIN_S = number("DRAIN_S", 60)
# of every tenant; each may have it alone (Tenant.privacy)
PRIVACY = flag("PRIVACY", False)
WATCHDOG_S = number("WATCHDOG_S", 180, 2)
BODIES = text("BODIES", "postgres")
if BODIES not in ("postgres", "s3"):
    raise ImproperlyConfigured(f"BODIES={BODIES!r} is neither postgres nor s3")
S3_ENDPOINT = url("S3_ENDPOINT", ("http", "https"), "").rstrip("/")
S3_BUCKET = text("S3_BUCKET", "")
S3_REGION = text("S3_REGION", "us-east-1")
S3_ACCESS_KEY = text("S3_ACCESS_KEY", "")
S3_SECRET_KEY = text("S3_SECRET_KEY", "")
if (BODIES == "s3" or S3_ENDPOINT) and not all((S3_ENDPOINT, S3_BUCKET, S3_ACCESS_KEY, S3_SECRET_KEY)):
    raise ImproperlyConfigured("an S3 store needs S3_ENDPOINT, S3_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY")
# days; 0 keeps for ever. What is unfinished is kept in any case
KEEP_CONTENT_DAYS = number("KEEP_CONTENT_DAYS", 45)
KEEP_MAIL_DAYS = number("KEEP_MAIL_DAYS", 180)
KEEP_WEBHOOKS_DAYS = number("KEEP_WEBHOOKS_DAYS", 45)
KEEP_INBOUND_DAYS = number("KEEP_INBOUND_DAYS", 45)
KEEP_PRIVATE_DAYS = number("KEEP_PRIVATE_DAYS", 7, 1)
IN_FLIGHT = int(number("IN_FLIGHT", 200, 1))
JOBS_NICE = int(number("JOBS_NICE", 5, 0, 19))
WEBHOOK_ALLOW_PRIVATE = flag("WEBHOOK_ALLOW_PRIVATE", SANDBOX) and SANDBOX

# --- who is told of troubles --------------------------------------------------------------------------------
ALERT_EMAIL = tuple(addr_spec("ALERT_EMAIL", w) for w in words("ALERT_EMAIL"))
ALERT_FROM = addr_spec("ALERT_FROM", text("ALERT_FROM", "")) if ALERT_EMAIL else ""
ALERT_SMARTHOST = url("ALERT_SMARTHOST", ("smtp", "smtps"), "")
ALERT_WEBHOOK_URL = url("ALERT_WEBHOOK_URL", ("http", "https"), "")
ALERT_QUIET_S = number("ALERT_QUIET_S", 120, 1, 86400)

# --- who is told how well our sessions were protected (RFC 8460) -------------------------------------------------
TLS_REPORT_FROM = text("TLS_REPORT_FROM", "")
if TLS_REPORT_FROM:
    TLS_REPORT_FROM = addr_spec("TLS_REPORT_FROM", TLS_REPORT_FROM)

# --- Django -------------------------------------------------------------------------------------------------
DEBUG = False
BASE_URL = url("BASE_URL", ("http", "https"), "http://127.0.0.1:8000").rstrip("/")
if not urlsplit(BASE_URL).hostname:
    raise ImproperlyConfigured(f"BASE_URL={BASE_URL!r} names no host")
_behind_https = BASE_URL.startswith("https://")
ALLOWED_HOSTS = list(words("ALLOWED_HOSTS")) or [urlsplit(BASE_URL).hostname or "localhost", "127.0.0.1", "localhost"]
CSRF_TRUSTED_ORIGINS = [BASE_URL]
CSRF_FAILURE_VIEW = "mailapi.errors.csrf_failed"
INSTALLED_APPS = [
    # before the theme, two of whose templates it replaces
    "deliveries",
    "unfold",
    "axes",
    "django_otp",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "mailapi",
]
MIDDLEWARE = [
    "mailapi.errors.RequestId",
    "mailapi.compat.dispatch.ByCredential",
    "mailapi.past.PastThePanel",
    # the panel's alone
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "deliveries.admin.policy.PanelPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "deliveries.admin.login.SecondFactor",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "mailapi.urls"
WSGI_APPLICATION = "mailapi.wsgi.application"
AUTH_USER_MODEL = "deliveries.User"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = ["deliveries.admin.formats"]
STATIC_URL = "/static/"
# files are served from the packages themselves, so that nothing has to be collected before the first start
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _behind_https
if _behind_https:
    # no other host of the domain, and no page in clear, can plant them
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _behind_https else None
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "SAMEORIGIN"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "frame-ancestors": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
    }
}

# --- the panel's door ---------------------------------------------------------------------------------------
#: how many proxies of our own stand before the web processes: the client is that many places from the end of
#: X-Forwarded-For
PROXIES = int(number("PROXIES", 1 if _behind_https else 0, 0, 10))
#: from these alone X-Forwarded-For is believed
PROXY_NETWORKS = tuple(network("PROXY_NETWORKS", w) for w in words(
    "PROXY_NETWORKS", "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1/128,fc00::/7"
))  # fmt: skip
SECOND_FACTOR = text("SECOND_FACTOR", "optional" if SANDBOX else "operators")
if SECOND_FACTOR not in ("optional", "operators", "everyone"):
    raise ImproperlyConfigured(f"SECOND_FACTOR={SECOND_FACTOR!r} is none of optional, operators, everyone")
# what a right password forgives; what closes the door is counted by the handler
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_HANDLER = "deliveries.admin.tries.Tries"
AXES_USERNAME_CALLABLE = "deliveries.admin.tries.login_of"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "deliveries.admin.login.client_ip"
AXES_LOCKOUT_CALLABLE = "deliveries.admin.login.locked"
AXES_ENABLE_ADMIN = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False

# --- the API ------------------------------------------------------------------------------------------------
#: requests a second of an API key that has no number of its own; 0: any number
RATE_LIMIT = int(number("RATE_LIMIT", 5000, 0, 1_000_000))
#: days that a request stands in the log
LOG_DAYS = int(number("LOG_DAYS", 30, 1, 3650))
#: seconds that each 64 KB of a body have to come in
BODY_S = number("BODY_S", 15, 3, 3600)
#: octets of a request's body: Resend's bound
MAX_BODY_OCTETS = 40 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_OCTETS
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["mailapi.auth.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["mailapi.auth.HasKey"],
    "DEFAULT_THROTTLE_CLASSES": ["mailapi.throttle.PerKey"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "mailapi.errors.handle",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "mailapi",
    "DESCRIPTION": "Transactional mail: post it, follow it, hear what became of it.",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "POSTPROCESSING_HOOKS": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # no badge from the Internet; the key is forgotten with the page
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None, "persistAuthorization": False},
}

# --- logs: one line an event, on standard error; the supervisor or the host keeps them ----------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "mailapi.logs.formatter"}},
    "filters": {"seldom": {"()": "mailapi.logs.Seldom"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        "seldom": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["seldom"]},
    },
    "root": {"handlers": ["stderr"], "level": log_level("LOG_LEVEL", "INFO")},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "django.security": {"handlers": ["seldom"], "propagate": False},
        "axes": {"level": "WARNING"},
        "mail.log": {"level": "CRITICAL"},
        # a line for every bell, else
        "celery": {"level": "WARNING"},
    },
}
LOG_ACCEPTED = flag("LOG_ACCEPTED")
LOG_FORMAT = text("LOG_FORMAT", "text")
if LOG_FORMAT not in ("text", "json"):
    raise ImproperlyConfigured(f"LOG_FORMAT={LOG_FORMAT!r} is neither text nor json")
if LOG_FORMAT == "json":
    logs.tell_all()
