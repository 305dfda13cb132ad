FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 libstdc++6 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt requirements-no-paddle.txt requirements-tracing.txt ./
RUN pip install --no-cache-dir -r requirements.txt -r requirements-tracing.txt
COPY . .
# The root file system may be read-only: what is written goes to /tmp.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 1000
EXPOSE 8000
HEALTHCHECK --start-period=300s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
ENTRYPOINT ["python", "serve.py"]
CMD ["/models/NAME", "--host", "0.0.0.0"]
