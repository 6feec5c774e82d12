# One image for every role: `saga run orchestrator`, `saga run order`, …
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY outbox outbox
COPY participants participants
COPY benchmarks benchmarks
COPY chaos chaos
COPY simulation simulation
COPY orchestrator orchestrator
COPY migrations migrations
RUN pip install --no-cache-dir --constraint constraints.txt . && useradd --system --no-create-home saga
USER saga
ENTRYPOINT ["saga"]
