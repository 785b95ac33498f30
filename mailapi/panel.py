"""The panel's name, looks and menu, as django-unfold reads them from the settings. Knows no model: links are names."""

from __future__ import annotations

from django.templatetags.static import static
from django.urls import reverse_lazy


def _menu(title: str, icon: str, model: str, permission: str = "deliveries.admin.menu.member") -> dict[str, object]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:deliveries_{model}_changelist"),
        "permission": permission,
    }


_OPERATOR = "deliveries.admin.menu.operator"
UNFOLD = {
    "SITE_TITLE": "mailapi",
    "SITE_HEADER": "mailapi",
    "SITE_SYMBOL": "mail",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("panel/icon.svg")}],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "ACCOUNT": {
        "navigation": [
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
            {"title": "Second factor", "link": reverse_lazy("admin:second_factor_manage")},
        ]
    },
    "DASHBOARD_CALLBACK": "deliveries.admin.home.dashboard",
    "STYLES": [lambda request: static("panel/panel.css")],
    "SCRIPTS": [lambda request: static("panel/panel.js")],
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Mail",
                "items": [
                    _menu("Messages", "mail", "message"),
                    _menu("Suppressions", "block", "suppression"),
                    _menu("Inbound", "inbox", "inboundmessage"),
                    {
                        "title": "Queue",
                        "icon": "low_priority",
                        "link": reverse_lazy("admin:queue"),
                        "permission": _OPERATOR,
                    },
                    {
                        "title": "Doctor",
                        "icon": "stethoscope",
                        "link": reverse_lazy("admin:doctor"),
                        "permission": _OPERATOR,
                    },
                    {
                        "title": "Restored",
                        "icon": "settings_backup_restore",
                        "link": reverse_lazy("admin:restored"),
                        "permission": "deliveries.admin.menu.restored",
                    },
                    _menu("Brakes", "front_hand", "brake", _OPERATOR),
                    _menu("Sites", "speed", "site", _OPERATOR),
                    _menu("IP pools", "hub", "sourcepool", _OPERATOR),
                    _menu("IP addresses", "lan", "sourceaddress", _OPERATOR),
                    _menu("IP pool rules", "alt_route", "poolrule", _OPERATOR),
                    _menu("Destinations", "dns", "destination", _OPERATOR),
                    {
                        "title": "Received (sandbox)",
                        "icon": "science",
                        "link": reverse_lazy("admin:received"),
                        "permission": "deliveries.admin.received.offered",
                    },
                ],
            },
            {
                "title": "Application",
                "separator": True,
                "items": [
                    _menu("Domains", "language", "sendingdomain"),
                    _menu("Receiving addresses", "move_to_inbox", "inboundroute"),
                    _menu("Handed on", "forward_to_inbox", "handover"),
                    _menu("Bounce mailboxes", "mark_email_unread", "bouncemailbox"),
                    _menu("Templates", "draft", "template"),
                    _menu("API keys", "key", "apikey"),
                    _menu("Webhook endpoints", "webhook", "webhookendpoint"),
                    _menu("Webhook posts", "outbox", "webhookdelivery"),
                ],
            },
            {
                "title": "People",
                "separator": True,
                "items": [
                    _menu("Members", "group", "membership"),
                    _menu("Erasures", "person_off", "erasure"),
                    _menu("Audit log", "history", "auditentry"),
                    _menu("Tenants", "apartment", "tenant", _OPERATOR),
                    _menu("Logins", "person", "user", _OPERATOR),
                    _menu("Operator keys", "passkey", "operatorkey", _OPERATOR),
                    {
                        "title": "Settings",
                        "icon": "tune",
                        "link": reverse_lazy("admin:settings"),
                        "permission": _OPERATOR,
                    },
                ],
            },
        ],
    },
}
