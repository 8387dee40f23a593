"""What help shows as examples, by command: two or more of each. A test parses every one."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "dstack init                          # write .dstack/ to start from",
        "dstack plan                          # what apply would do, and what it costs",
        "dstack apply                         # do it, after confirmation",
        "dstack run . -f train.dstack.yml     # start one run and follow its log",
    ),
    "plan": (
        "dstack plan --out change.plan        # for `dstack apply change.plan`",
        "dstack plan --against origin/main --fail-on destroy,cost>20",
    ),
    "apply": (
        "dstack apply -y -d                   # one pass, for cron",
        "dstack apply -y --yes-above 20       # say yes up to $20/h",
        "dstack apply -y --watch 5m           # again every 5 minutes, until Ctrl-C",
        "dstack apply -y --until-done         # until no run waits or runs",
    ),
    "show": ("dstack show change.plan", "dstack show change.plan --markdown plan.md"),
    "explain": (
        "dstack explain train                 # a run, an instance or a pool",
        "dstack explain offer g5.xlarge",
    ),
    "destroy": ("dstack destroy", "dstack destroy --confirm my-project"),
    "gc": ("dstack gc                            # list, then ask", "dstack gc --json"),
    "run": (
        "dstack run . -f train.dstack.yml --gpu 80GB --spot-auto",
        "dstack run . -n test -d -y           # start it and return",
    ),
    "ps": ("dstack ps -a                         # also the runs that ended", "dstack ps -w"),
    "logs": ("dstack logs -f train", "dstack logs train --tail 20 --attempt 1"),
    "stop": (
        "dstack stop train eval",
        "dstack stop --all -y",
        "dstack stop train -x -y              # at once, without its result",
    ),
    "attach": ("dstack attach notebook", "dstack attach notebook -p 8888:8888"),
    "cp": ("dstack cp train:out/model.pt .", "dstack cp data.csv train:data/"),
    "artifacts": ("dstack artifacts train", "dstack artifacts train results/"),
    "init": ("dstack init", "dstack init ../project -y             # ask nothing"),
    "validate": ("dstack validate", "dstack validate .dstack/pools.yml train.dstack.yml"),
    "schema": ("dstack schema", "dstack schema documents > documents.schema.json"),
    "completion": (
        "dstack completion bash > ~/.local/share/bash-completion/completions/dstack",
        "dstack --install-completion          # for the shell that you use",
    ),
    "offers": (
        "dstack offers --gpu A100:80GB:2..8",
        "dstack offers --cpu 8.. --memory 32GB.. --max-price 0.5 --json",
    ),
    "cost": ("dstack cost --since 7d --by user", "dstack cost --since 2026-11-01 --csv"),
    "events": ("dstack events --since 2h --pool gpu", "dstack events --run train -f"),
    "pool list": ("dstack pool list", "dstack pool list -v"),
    "pool ps": ("dstack pool ps -w", "dstack pool ps --pool gpu --json"),
    "pool create": ("dstack pool create -n gpu", "dstack -C ../project pool create -n gpu"),
    "pool delete": ("dstack pool delete -n gpu", "dstack -C ../project pool delete -n gpu"),
    "pool set-default": ("dstack pool set-default --pool gpu", "dstack -C ../project pool set-default --pool gpu"),
    "pool add": (
        "dstack pool add --gpu A100:80GB --count 2 --spot-auto",
        "dstack pool add --pool dev --instance-type g5.xlarge --idle-duration 1h",
    ),
    "pool add-ssh": (
        "dstack pool add-ssh ubuntu@10.0.0.5 ubuntu@10.0.0.6 --pool lab -i ~/.ssh/lab",
        "dstack pool add-ssh gpu-box          # as ~/.ssh/config names it",
    ),
    "pool remove": ("dstack pool remove gpu-1", "dstack pool remove gpu-1 --force      # also while it is busy"),
    "pool drain": (
        "dstack pool drain gpu --for 2h",
        "dstack pool drain gpu --at 22:00 --until 'tomorrow 06:00' --reason upgrade",
    ),
    "pool pause": ("dstack pool pause gpu", "dstack pool pause gpu --for 2h --reason 'disk swap'"),
    "pool resume": ("dstack pool resume gpu", "dstack pool resume gpu-1              # clear its quarantine"),
    "autoscale allow": (
        "dstack autoscale allow g5.xlarge --max 4 --region us-east-1",
        "dstack autoscale allow g5.xlarge --max 0 -y   # delete the rule",
    ),
    "autoscale info": ("dstack autoscale info", "dstack autoscale info --json"),
    "autoscale clear": ("dstack autoscale clear", "dstack autoscale clear -y"),
    "autoscale enable": ("dstack autoscale enable", "dstack autoscale enable -y"),
    "autoscale disable": ("dstack autoscale disable", "dstack autoscale disable -y"),
    "backend list": ("dstack backend list", "dstack backend list --json"),
    "backend check": ("dstack backend check", "dstack backend check aws --json"),
    "backend policy": ("dstack backend policy aws --plan", "dstack backend policy aws --apply > policy.json"),
    "backend key": ("dstack backend key", "dstack -C ../project backend key"),
    "aws configure": (
        "dstack aws configure",
        "dstack aws configure --profile research --region us-east-1",
    ),
    "state show": ("dstack state show", "dstack state show --json"),
    "state rebuild": ("dstack state rebuild", "dstack state rebuild -y"),
    "state forget": ("dstack state forget aws/us-east-1", "dstack state forget gpu-1 --confirm gpu-1"),
    "state pull": ("dstack state pull", "dstack state pull state.json"),
    "state push": ("dstack state push state.json", "dstack state push state.json -y"),
    "state edit": ("dstack state edit", "dstack -C ../project state edit"),
    "state migrate": (
        "dstack state migrate --to s3://bucket/dstack",
        "dstack state migrate --to gs://bucket/dstack -y",
    ),
    "state rollback": ("dstack state rollback", "dstack state rollback VERSION -y"),
    "state new-lineage": ("dstack state new-lineage", "dstack state new-lineage -y"),
}
