"""What help shows as examples, by command. A test parses each of them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "dstack init                          # write .dstack/ to start from",
        "dstack plan                          # what apply would do, and what it costs",
        "dstack apply                         # do it, after a question",
        "dstack run . -f train.dstack.yml     # start one run and follow its log",
    ),
    "plan": (
        "dstack plan --out change.plan        # for `dstack apply change.plan`",
        "dstack plan --against origin/main --fail-on destroy,cost>20",
    ),
    "apply": (
        "dstack apply -y -d                   # one pass, for cron",
        "dstack apply -y --yes-above 20       # say yes up to $20/h",
    ),
    "run": (
        "dstack run . -f train.dstack.yml --gpu 80GB --spot-auto",
        "dstack run . -n test -d -y           # start it and return",
    ),
    "offers": (
        "dstack offers --gpu A100:80GB:2..8",
        "dstack offers --cpu 8.. --memory 32GB.. --max-price 0.5 --json",
    ),
    "ps": ("dstack ps -a                         # also the runs that ended",),
    "logs": ("dstack logs -f train", "dstack logs train --attempt 1        # of the first attempt"),
    "stop": (
        "dstack stop train eval",
        "dstack stop --all -y",
        "dstack stop train -x -y              # at once, without its result",
    ),
    "attach": ("dstack attach notebook -p 8888:8888",),
    "cp": ("dstack cp train:out/model.pt .", "dstack cp data.csv train:data/"),
    "artifacts": ("dstack artifacts train results/",),
    "init": ("dstack init", "dstack init ../project -y             # ask nothing"),
    "validate": ("dstack validate .dstack/pools.yml",),
    "schema": ("dstack schema documents",),
    "completion": (
        "dstack completion bash > ~/.local/share/bash-completion/completions/dstack",
        "dstack --install-completion          # for the shell that you use",
    ),
    "cost": ("dstack cost --since 7d --by user",),
    "events": ("dstack events --since 2h --pool gpu -f",),
    "pool add": (
        "dstack pool add --gpu A100:80GB --count 2 --spot-auto",
        "dstack pool add --pool dev --instance-type g5.xlarge --idle-duration 1h",
    ),
    "pool add-ssh": ("dstack pool add-ssh ubuntu@10.0.0.5 ubuntu@10.0.0.6 --pool lab -i ~/.ssh/lab",),
    "pool remove": ("dstack pool remove gpu-1", "dstack pool remove gpu-1 --force      # also while it is busy"),
    "pool drain": ("dstack pool drain gpu --at 22:00 --until 'tomorrow 06:00' --reason upgrade",),
    "pool pause": ("dstack pool pause gpu --for 2h",),
    "autoscale allow": ("dstack autoscale allow g5.xlarge --max 4 --region us-east-1",),
    "backend check": ("dstack backend check aws",),
    "backend policy": ("dstack backend policy aws --apply > policy.json",),
    "aws configure": ("dstack aws configure --profile research --region us-east-1",),
    "state migrate": ("dstack state migrate --to s3://bucket/dstack",),
}
