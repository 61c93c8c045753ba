"""What events, times and numbers of a registry say to people."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from runstone.ledger import LedgerEvent


def told(event: LedgerEvent) -> str:
    """Return what an event says, in one line."""
    said = event.fields
    why = f": {said['reason']}" if said.get("reason") else ""
    version = said.get("version")
    match event.kind:
        case "created":
            return f"made model {said['name']}"
        case "registered":
            proposed = said.get("proposal", {}).get("version")
            other = f" (proposed: {proposed})" if proposed and proposed != version else ""
            return f"registered {version}{other}{why}"
        case "judged":
            return f"{said['state']} {version}{why}"
        case "staged":
            word = "rolled back to" if said.get("is_rollback") else "moved"
            others = ", ".join(other["version"] for other in said.get("replaced", ()))
            gates = (said.get("record") or {}).get("checks")
            asked = f", {len(gates)} gate{'s' * (len(gates) != 1)} passed" if gates else ""
            left = f", replacing {others}" if others else ""
            return f"{word} {version} from {said.get('before')} to {said['stage']}{left}{asked}{why}"
        case "refused":
            checks = (said.get("record") or {}).get("checks", ())
            failed = "; ".join(f"{check['gate']}: {check['detail']}" for check in checks if not check["passed"])
            return f"refused {version} for {said['stage']}: {failed}"
        case "aliased":
            return f"alias {said['alias']} points to {version or 'nothing'} (before: {said.get('before') or 'nothing'})"
        case "withdrawn":
            return f"withdrew {version}{why}"
        case "revoked":
            return (
                f"revoked {version}{why}" if said.get("reason") is not None else f"took back that {version} was revoked"
            )
        case "flagged":
            return f"{version} descends from {said['from']}, which was revoked{why}"
        case "tagged":
            tags = [f"{name}={value}" for name, value in said.get("set", {}).items()]
            tags += [f"without {name}" for name in said.get("remove", ())]
            return f"tags of {version or 'the model'}: {', '.join(tags)}"
        case "noted":
            return f"notes of {version or 'the model'}"
        case "delivered":
            return f"hook {said['hook']} for event {said['of']}: {said['state']} ({said['detail']})"
        case "deployed":
            many = f" with {said['replicas']} replicas" if said.get("replicas") is not None else ""
            where = f" at {said['url']}" if said.get("url") else ""
            left = f", replacing {', '.join(said['replaced'])}" if said.get("replaced") else ""
            return f"deployed {version} to {said['target']}{many}{where}{left}{why}"
        case "undeployed":
            return f"took {', '.join(said['ended'])} off {said['target']}{why}"
        case "incident_opened":
            return f"opened incident #{said['number']} ({said['kind']}) of {version}: {said['summary']}"
        case "incident_closed":
            run = f" by run {said['run_id']}" if said.get("run_id") else ""
            return f"closed incident #{said['number']} of {version}{run}{why}"
        case "profiled":
            return f"profile of {version}: {said['profile'][:16]}…"
        case "defined":
            return f"stages: {', '.join(said['stages'])}" if said.get("stages") else "changed what the model asks for"
        case kind:
            return kind


def moment(at: float) -> str:
    """Return a time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: float) -> str:
    """Return a metric for people."""
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def size_text(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"
