"""bfloat16 on the CPU: the exported graph on OpenVINO in half the bits (optional)."""

from pathlib import Path
from typing import TYPE_CHECKING

from inference.interfaces import ExtraEngine
from inference.names import OLD_GRAPH, WEIGHTS
from system import machine, processor
from system.errors import UserError
from system.settings import Settings

if TYPE_CHECKING:
    import paddle.inference

    from imaging.transforms import EvalTransform


class OpenVinoBfloat16(ExtraEngine):
    """The graph of the 32-bit engines; OpenVINO rounds weights and activations to bfloat16 when it loads it."""

    name, option = "openvino-bf16", "bf16"
    help = "also permit bfloat16 on CPUs that have it, if it keeps the accuracy"
    graph, weights = OLD_GRAPH, WEIGHTS
    is_exact = False

    def check(self) -> None:
        """Checks that this machine can verify it."""
        if reason := self.obstacle():
            raise UserError(f"--bf16: {reason}; export without --bf16, or on a machine that can")

    def write(self, folder: Path, settings: Settings, transform: "EvalTransform") -> None:
        """Checks that there is a graph: it is the one that the 32-bit engine openvino reads."""
        if not (folder / self.graph).is_file():
            reason = "paddle cannot write this network in the form that OpenVINO reads"
            raise UserError(f"--bf16: {reason}; export without --bf16")

    def problem(self) -> str:
        """Returns why the engine cannot run on this machine, and the remedy; "" if it can."""
        reason = self.obstacle()
        return f"{reason}; use engine=auto" if reason else ""

    def obstacle(self) -> str:
        """Returns why this machine cannot compute in bfloat16; "" if it can.

        OpenVINO itself would compute in float32 there and say nothing.
        """
        if not machine.has_openvino():
            return "this paddle was built without OpenVINO"
        return processor.bfloat16_obstacle()

    def configure(self, options: "paddle.inference.Config") -> None:
        """Turns on OpenVINO in bfloat16; paddle ignores float16."""
        options.enable_openvino_engine(options.Bfloat16)


OPENVINO_BF16 = OpenVinoBfloat16()
