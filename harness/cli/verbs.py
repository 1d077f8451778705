"""The verbs in the order of `--help`, by panel, each with examples that the tests parse."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from harness.compute.shipped import program
from harness.errors import UserError

# Without the interpreter's full path, which would make the examples hard to read.
PROGRAM = "contextrast-bench" if program() == "contextrast-bench" else "python -m harness"
RUN = "results/runs/camvid-small/camvid/lite0_fpn/contextrast/seed0"
VERBS: dict[str, dict[str, list[str]]] = {
    "Run": {
        "plan": ["plan", "plan camvid-small --gpu-memory 24"],
        "run": ["run quick", "run camvid-controls diagnosis --budget 50m --jobs 8"],
        "train": ["train camvid-small --dataset camvid --model lite0_fpn --arm contextrast --seed 0"],
        "evaluate": [f"evaluate {RUN}", "evaluate --checkpoint FILE --model hrnet_w48 --dataset cityscapes"],
        "report": ["report quick", "report camvid-small --results results/reference/h100"],
        "status": ["status quick --watch", "status camvid-small --retry failed"],
        "summary": ["summary quick"],
    },
    "Add": {
        "init": ["init my_project"],
        "new-method": ["new-method my_loss"],
        "score": ["score --predictions DIR --dataset camvid --arm their_method"],
        "prepare": ["prepare --dataset pascal_context --root DIR"],
        "verify": ["verify --dataset camvid"],
        "borrow": ["borrow camvid-controls"],
        "equal-compute": ["equal-compute config/camvid-controls.yaml"],
    },
    "Inspect": {
        "list": ["list methods", "list methods contextrast", "list arms camvid-small"],
        "cost": ["cost --model lite0_fpn --size 360x480"],
        "latency": ["latency --model lite0_fpn --size 512x1024"],
        "overhead": ["overhead --model lite0_fpn --size 128x256 --batch 4"],
        "reproduce": [f"reproduce {RUN} --iterations 50"],
        "check-record": ["check-record results/runs/camvid-small"],
        "repeats": ["repeats results/reference/epyc results/reference/h100"],
    },
    "Share": {
        "predict": [f"predict {RUN} --split test"],
        "export": [f"export {RUN}"],
        "site": ["site"],
        "refresh": ["refresh README.md"],
        "stale": ["stale", "stale --remove", "stale --keep camvid"],
    },
}


class Verb(TyperCommand):
    """A command that reports all missing options at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raise UserError if a required option or argument is missing, unless `--help` is given."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        required = [each for each in self.get_params(ctx) if each.required and given.get(each.name) is None]
        if required and not given.get("help") and not ctx.resilient_parsing:
            names = [
                each.opts[0] if each.opts[0].startswith("--") else each.metavar or each.name.upper()
                for each in required
            ]
            missing = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            raise UserError(f"{ctx.info_name} needs {missing}: see `{ctx.command_path} --help`")
        return super().parse_args(ctx, args)


class Ordered(TyperGroup):
    """A command group that lists the verbs in the order of `VERBS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs, panel by panel."""
        return [name for verbs in VERBS.values() for name in verbs]


def verb(app: typer.Typer, name: str) -> Callable[..., Any]:
    """A decorator that registers a function as the verb `name`, in its panel and with its examples."""
    ((panel, examples),) = [(panel, verbs[name]) for panel, verbs in VERBS.items() if name in verbs]
    shown = "\n\n".join(f"{PROGRAM} {example}" for example in examples)
    return app.command(name, cls=Verb, rich_help_panel=panel, epilog=f"Examples:\n\n{shown}")
