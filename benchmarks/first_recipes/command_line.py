"""Help for the recipes, without torch: it takes a second and not ten.

A recipe calls ``answer_help`` before it imports torch. Not in the package, whose import brings
torch.
"""

import sys
from pathlib import Path

QUESTIONS = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"}
TASKS = """
Groups of settings, GROUP=CHOICE:

$APP_CONFIG_GROUPS
"""
TEMPLATE = """
Settings, NAME=VALUE or GROUP.NAME=VALUE, explained in conf/${hydra.help.app_name}.yaml and the
files that it names:

$CONFIG
Also: --config-name NAME (another file of conf), --multirun (x=1,2,3: one run after the other),
--cfg job (the settings alone), --hydra-help.

Exit codes: 0 complete, 1 refused or failed (one line or a traceback says why), 130 interrupted.
"""


def answer_help(description: str, config_name: str) -> None:
    """Answer --help and its kin, and end the process; return if nothing of that kind is asked.

    Args:
        description: what the recipe does, its docstring.
        config_name: of its settings in ``conf``.
    """
    asked = {argument.split("=")[0] for argument in sys.argv[1:]} & QUESTIONS
    if not asked:
        return
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    # Printed here: in Hydra's header a "$" would be the name of a setting.
    if asked & {"--help", "-h"}:
        print(description.strip())
    conf = Path(__file__).resolve().parent / "conf"
    groups = TASKS if "- task:" in (conf / f"{config_name}.yaml").read_text() else ""
    pages = {"app_name": config_name, "header": "", "footer": "", "template": groups + TEMPLATE}
    ConfigStore.instance().store(group="hydra/help", name="recipe", node=pages)
    sys.argv.append("hydra/help=recipe")
    answer = hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)
    try:
        answer(lambda cfg: None)()
    except HydraException as error:  # of --help alone; elsewhere Hydra ends the process itself
        sys.exit(f"{config_name}.py: {error}")
    sys.exit(0)
