# The service, the poller and the commands. Needs DATABASE_URL; writes nothing to its root file system.
#   docker build -t scalelite . && docker run -e DATABASE_URL -e LOADBALANCER_SECRET -p 3000:3000 scalelite
FROM python:3.13-slim AS build
WORKDIR /src
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY scalelite scalelite
RUN python -m venv /opt/scalelite \
 && /opt/scalelite/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.13-slim
COPY --from=build /opt/scalelite /opt/scalelite
# Scripts that call Scalelite's ./bin/rake find it where it was.
COPY deploy/rake /srv/scalelite/bin/rake
WORKDIR /srv/scalelite
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin scalelite \
 && install -d -o scalelite -g scalelite /var/bigbluebutton
USER 10001
ENV PATH=/opt/scalelite/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/health/ready', timeout=2)"]
ENTRYPOINT ["scalelite"]
CMD ["serve"]
